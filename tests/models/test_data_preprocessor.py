"""From the data loader's batch to images in [0, 1], of any number of channels."""

import pytest
import torch
from mmengine.structures import BaseDataElement

from beitv2_mm.models.data_preprocessor import (
    MaskedImagePreprocessor,
    UnitRGBPreprocessor,
)
from support.tiny import (
    build_pretrainer,
    cifar_images,
    masks,
    randomize,
    samples,
    uneven_masks,
)


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


@pytest.mark.parametrize('num_masked', [None, 8, 11])
def test_padding_takes_no_part(num_masked):
    """Losses, accuracies and every gradient of uneven masks, padded to any number."""
    model, image = randomize(build_pretrainer()).train(), cifar_images(4)
    model.data_preprocessor = MaskedImagePreprocessor(num_masked)
    samples = [BaseDataElement(mask=m) for m in uneven_masks()]
    data = model.data_preprocessor(dict(inputs=(image * 255).byte(), data_samples=samples), True)
    assert data['masked'].patches.shape == (4, num_masked or 8)
    losses = model(**data, mode='loss')
    image = data['inputs']
    flat = uneven_masks().flatten(1)
    codes = model.tokenizer.get_codes(image)[flat]
    expected = model.head.loss(
        model.head(**model.masked_tokens(model.normalize(image), uneven_masks())), codes
    )
    torch.testing.assert_close(losses, expected)
    gradients = [
        torch.autograd.grad(found['loss_main'] + found['loss_aggregation'], [*model.parameters()])
        for found in (losses, expected)
    ]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize('kind', [list, torch.stack])
def test_preprocessor_gives_rgb_in_0_1_and_leaves_the_samples_on_the_host(kind):
    pixels = (cifar_images(2) * 255).byte()
    batch = dict(inputs=kind(list(pixels.flip(1))), data_samples=samples(2))
    data = MaskedImagePreprocessor()(batch)
    assert torch.equal(data['inputs'], pixels.float() / 255)
    assert data['data_samples'] is batch['data_samples']
    assert data['masked'].valid is None
    assert torch.equal(data['masked'].mask, masks(2))
    with pytest.raises(ValueError, match=r'is \(B, 3, H, W\), but \(2, 1, 32, 32\) was given'):
        MaskedImagePreprocessor()(dict(inputs=torch.zeros(2, 1, 32, 32)))
