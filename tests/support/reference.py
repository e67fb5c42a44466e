"""The reference's recipes as numbers, and full-size networks of configs on the meta device."""

from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from mmpretrain.registry import MODELS
from torch import nn

from beitv2_mm.checkpoint import official_name

CONFIGS = Path(__file__).parents[2] / 'configs'
OFFICIAL = 'https://github.com/addf400/files/releases/download/BEiT-v2/'
DEPTHS = {'base': 12, 'large': 24}
WIDTHS = {'base': 768, 'large': 1024}
EPOCH = 8  # iterations of an epoch, where a schedule is looked at


class Tokenizer(NamedTuple):
    """epochs 100, batch 64 x 8, lr 5e-5 in all."""

    file: str
    decoder_blocks: int
    teacher: str
    projection: bool
    dims: int


class MIM(NamedTuple):
    """lr 1.5e-3, batch 2048 in all."""

    file: str
    arch: str
    gpus: int
    batch: int
    epochs: int
    beta2: float
    drop_path: float
    early: int | None


class FineTuning(NamedTuple):
    file: str
    arch: str
    start: str
    epochs: int
    lr: float
    warmup: int
    layer_decay: float
    drop_path: float
    mixup: float
    cutmix: float
    gpus: int = 8
    batch: int = 128
    classes: int = 1000


CLIP, DINO = 'vit_base_patch16_clip_quickgelu_224.openai', 'vit_base_patch16_224.dino'
TOKENIZERS = [
    Tokenizer('vqkd_base_clip_8xb64_100e_in1k', 3, CLIP, True, 512),
    Tokenizer('vqkd_base_clip_1block_8xb64_100e_in1k', 1, CLIP, True, 512),
    Tokenizer('vqkd_base_dino_1block_8xb64_100e_in1k', 1, DINO, False, 768),
]
MIMS = [
    MIM('beitv2_base_16xb128_300e_in1k', 'base', 16, 128, 300, 0.98, 0, 9),
    MIM('beitv2_base_16xb128_1600e_in1k', 'base', 16, 128, 1600, 0.999, 0.1, 9),
    MIM('beitv2_large_64xb32_300e_in1k', 'large', 64, 32, 300, 0.98, 0, 21),
    MIM('beitv2_large_64xb32_1600e_in1k', 'large', 64, 32, 1600, 0.999, 0.1, 21),
    MIM('beit_base_16xb128_300e_in1k', 'base', 16, 128, 300, 0.98, 0, None),
]
B, L = 'beitv2_base_patch16_224_pt1k', 'beitv2_large_patch16_224_pt1k'
FINE_TUNINGS = [
    FineTuning(
        'beitv2_base_8xb128_100e_in1k', 'base', f'{B}_300e', 100, 5e-4, 20, 0.65, 0.1, 0.8, 1
    ),
    FineTuning(
        'beitv2_base_8xb128_100e_in1k_from_1600e', 'base', B, 100, 5e-4, 20, 0.6, 0.2, 0.8, 1
    ),
    FineTuning(
        'beitv2_base_8xb128_30e_in1k_from_in21k',
        'base',
        f'{B}_ft21k',
        30,
        5e-5,
        20,
        0.75,
        0.1,
        0,
        0,
    ),
    FineTuning('beitv2_large_8xb128_50e_in1k', 'large', f'{L}_300e', 50, 5e-4, 5, 0.8, 0.2, 0.8, 1),
    FineTuning(
        'beitv2_large_8xb128_50e_in1k_from_1600e', 'large', L, 50, 2e-4, 5, 0.8, 0.2, 0.8, 1
    ),
    FineTuning(
        'beitv2_large_8xb128_20e_in1k_from_in21k',
        'large',
        f'{L}_ft21k',
        20,
        7e-5,
        5,
        0.8,
        0.25,
        0,
        0,
    ),
    FineTuning(
        'beitv2_base_64xb64_90e_in21k', 'base', B, 90, 6e-4, 20, 0.75, 0.1, 0.8, 1, 64, 64, 21841
    ),
    FineTuning(
        'beitv2_large_64xb64_90e_in21k', 'large', L, 90, 6e-4, 20, 0.75, 0.2, 0.8, 1, 64, 64, 21841
    ),
]


def read(folder: str, name: str) -> Config:
    return Config.fromfile(CONFIGS / folder / f'{name}.py')


def full_size(cfg: Config) -> nn.Module:
    with torch.device('meta'):
        return MODELS.build(cfg.model)


def optimizer_groups(cfg: Config, model: nn.Module) -> dict[str, dict]:
    """Official name of each parameter -> its group."""
    wrapper = build_optim_wrapper(model, {**cfg.optim_wrapper, 'type': OptimWrapper})
    names = {id(p): official_name(name) for name, p in model.named_parameters()}
    return {names[id(p)]: g for g in wrapper.optimizer.param_groups for p in g['params']}


def learning_rates(cfg: Config, scale: float = 1.0) -> list[float]:
    """Of every iteration, for a group whose rate is ``scale`` times the base one."""
    lr = cfg.optim_wrapper.optimizer.lr
    group = dict(params=[nn.Parameter(torch.zeros(1))], lr=lr * scale)
    optimizer = torch.optim.SGD([group], lr=lr)
    scheduler = PARAM_SCHEDULERS.build(
        dict(cfg.param_scheduler, end=cfg.train_cfg.max_epochs),  # a runner fills `end` in
        default_args=dict(optimizer=optimizer, epoch_length=EPOCH),
    )
    rates = []
    for _ in range(cfg.train_cfg.max_epochs * EPOCH):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        scheduler.step()
    return rates


def transforms(pipeline: list) -> dict[str, dict]:
    return {t['type'].__name__: t for t in pipeline}


def block_parameters(dims: int, layer_scale: bool = True, table: int = 0) -> int:
    """One transformer block: no k bias, MLP of four times the width."""
    attention = 3 * dims**2 + 2 * dims + dims**2 + dims
    mlp = 8 * dims**2 + 5 * dims
    return attention + mlp + 4 * dims + 2 * dims * layer_scale + table


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
