"""From the data loader's batch to images in [0, 1], of any number of channels."""

import pytest
import torch

from beitv2_mm.models.data_preprocessor import UnitRGBPreprocessor


@pytest.mark.parametrize('channels', [1, 3, 4, 6])
@pytest.mark.parametrize('dtype', [torch.uint8, torch.float32])
def test_only_colours_are_turned(channels: int, dtype: torch.dtype) -> None:
    given = torch.randint(0, 256, (2, channels, 4, 6)).to(dtype)
    expected = given.flip(1) if channels == 3 else given
    preprocessor = UnitRGBPreprocessor(channels=channels)
    for inputs in (given, list(given)):
        found = preprocessor(dict(inputs=inputs))['inputs']
        torch.testing.assert_close(found, expected.float() / 255)
    larger = torch.zeros(channels, 8, 6, dtype=dtype)
    padded = preprocessor(dict(inputs=[given[0], larger]))['inputs']
    assert padded.shape == (2, channels, 8, 6)
    torch.testing.assert_close(padded[0, :, :4], expected[0].float() / 255)


def test_another_number_of_channels_is_an_error() -> None:
    for inputs in (torch.zeros(2, 3, 4, 4), [torch.zeros(3, 4, 4), torch.zeros(3, 5, 4)]):
        with pytest.raises(ValueError, match=r'images of 4 channels is \(B, 4, H, W\), but .*3'):
            UnitRGBPreprocessor(channels=4)(dict(inputs=inputs))
    with pytest.raises(ValueError, match=r'A batch of colour images is \(B, 3, H, W\)'):
        UnitRGBPreprocessor()(dict(inputs=torch.zeros(3, 4, 4)))
