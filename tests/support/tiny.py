"""Tiny networks, real images and a real (if random) teacher that many tests share."""

from pathlib import Path

import numpy as np
import timm
import torch
from mmengine.structures import BaseDataElement
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from beitv2_mm.models import (
    BEiTV2Backbone,
    BEiTV2Pretrainer,
    MIMHead,
    PatchAggregationNeck,
    TimmTeacher,
    VQKDTokenizer,
)

CIFAR = Path(__file__).parents[1] / 'data/cifar10'
ARCH = dict(embed_dims=16, num_layers=3, num_heads=2)
GRID = 4  # 32 pixels in patches of 8
NUM_CODES = 24
TEACHER_DIMS = 64


def cifar_images(count: int = 4) -> Tensor:
    """(count, 3, 32, 32) in [0, 1]."""
    files = sorted(CIFAR.glob('*/*.png'))[:count]
    return torch.stack(
        [torch.as_tensor(np.array(Image.open(f))).permute(2, 0, 1) / 255 for f in files]
    )


def backbone(**settings: object) -> BEiTV2Backbone:
    return BEiTV2Backbone(**{**dict(arch=ARCH, img_size=32, patch_size=8), **settings})


def randomize(module: nn.Module, seed: int = 0) -> nn.Module:
    """No parameter keeps a value (zero, one, 1e-5) that could hide that it is not used."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_scale = parameter.ndim == 1 and name.endswith('weight')  # of a norm
            if is_scale or 'gamma' in name:
                parameter.copy_(0.8 + 0.1 * noise)
            elif 'bias' in name or parameter.ndim == 1:
                parameter.copy_(0.2 * noise)
            else:
                parameter.copy_(noise * (1 / parameter[0].numel()) ** 0.5)
    return module


def teacher_config(folder: Path, model: str = 'test_vit', **settings: object) -> dict:
    """A timm network with random weights saved under ``folder``: nothing is downloaded."""
    file = folder / f'{model}.safetensors'
    if not file.exists():
        torch.manual_seed(0)
        save_file(randomize(timm.create_model(model)).state_dict(), file)
    return dict(type=TimmTeacher, model=model, checkpoint=str(file), input_size=32, **settings)


def tokenizer_config(teacher: dict | None = None, **settings: object) -> dict:
    return dict(
        type=VQKDTokenizer,
        encoder=dict(arch={**ARCH, 'num_layers': 2}, img_size=32, patch_size=8),
        decoder=dict(arch={**ARCH, 'num_layers': 1}),
        teacher=teacher,
        **{'quantizer': dict(num_codes=NUM_CODES, dim=8), 'target_dims': TEACHER_DIMS, **settings},
    )


def build_tokenizer(teacher: dict | None = None, **settings: object) -> VQKDTokenizer:
    config = tokenizer_config(teacher, **settings)
    config.pop('type')
    torch.manual_seed(0)
    tokenizer = VQKDTokenizer(**config)
    tokenizer.init_weights()
    return tokenizer


def pretrainer_config(separate: bool = False, neck: bool = True, **backbone: object) -> dict:
    return dict(
        backbone=dict(
            type=BEiTV2Backbone,
            arch=ARCH,
            img_size=32,
            patch_size=8,
            out_type='raw',
            with_mask_token=True,
            **{'position': 'shared', **backbone},
        ),
        neck=dict(type=PatchAggregationNeck, arch=ARCH, early_layer=2, separate_norm=separate)
        if neck
        else None,
        head=dict(type=MIMHead, embed_dims=16, num_codes=NUM_CODES, separate_head=separate),
        tokenizer=tokenizer_config(),
    )


def build_pretrainer(**settings: object) -> BEiTV2Pretrainer:
    torch.manual_seed(0)
    model = BEiTV2Pretrainer(**pretrainer_config(**settings))
    model.init_weights()
    return model


def masks(count: int = 4, masked: int = 6) -> Tensor:
    """(count, 4, 4) bool, ``masked`` patches each."""
    noise = torch.rand(count, GRID * GRID, generator=torch.Generator().manual_seed(0))
    return (noise.argsort(1).argsort(1) < masked).unflatten(1, (GRID, GRID))


def samples(count: int = 4, masked: int = 6) -> list[BaseDataElement]:
    """Data samples with these `masks`."""
    return [BaseDataElement(mask=mask) for mask in masks(count, masked)]


def uneven_masks() -> Tensor:
    """Masks with 1, 4, 0 and 8 patches."""
    mask = torch.zeros(4, 4, 4, dtype=torch.bool)
    mask[0, 0, :1], mask[1, 1], mask[3, :, :2] = True, True, True
    return mask


def parameters_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy of the state dict."""
    return {name: value.clone() for name, value in module.state_dict().items()}
