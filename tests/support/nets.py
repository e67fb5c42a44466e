"""Small networks of this package and of its peers, with weights that are nowhere at their start."""

from typing import Any

import torch
from mmpretrain.models import ImageClassifier, LinearClsHead
from torch import nn

from beitv2_mm.models import (
    BEiTV2Backbone,
    BEiTV2Pretrainer,
    MIMHead,
    PatchAggregationNeck,
    VQKDTokenizer,
)
from beitv2_mm.registry import MODELS as MODELS

ARCH = dict(embed_dims=32, num_layers=3, num_heads=4, mlp_ratio=2.0)
PEER_ARCH = dict(embed_dims=32, num_layers=3, depth=3, num_heads=4, feedforward_channels=64)
ENCODER = dict(arch=ARCH, img_size=64, patch_size=16)
DECODER = dict(arch=dict(embed_dims=32, num_layers=1, num_heads=4, mlp_ratio=2.0))
CODES = dict(num_codes=24, dim=8)


def randomize(module: nn.Module, seed: int = 0) -> Any:
    """All weights and float statistics drawn anew; norms stay near 1, layers near an isometry."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if not tensor.is_floating_point() or name.endswith(
                ('initted', 'mean', 'std', 'k_bias')
            ):
                continue
            scale = 0.3 if tensor.ndim < 2 or tensor.shape[0] == 1 else tensor[0].numel() ** -0.5
            offset = float(name.endswith(('norm1.weight', 'norm2.weight', 'ln1.weight')))
            tensor.uniform_(-1, 1, generator=generator).mul_(1.7 * scale).add_(offset)
            if name.endswith('quantize.embedding.weight'):
                tensor.copy_(nn.functional.normalize(tensor, dim=1))
    module.eval()  # mmpretrain's backbones return None here
    return module


def backbone(seed: int = 0, **options: Any) -> BEiTV2Backbone:
    return randomize(BEiTV2Backbone(**{**ENCODER, **options}), seed)


def classifier(seed: int = 0, num_classes: int = 10, **options: Any) -> ImageClassifier:
    return randomize(
        ImageClassifier(
            backbone=dict(type=BEiTV2Backbone, **{**ENCODER, **options}),
            head=dict(type=LinearClsHead, num_classes=num_classes, in_channels=32),
        ),
        seed,
    )


def pretrainer(seed: int = 0, aggregation: bool = True, separate: bool = False) -> BEiTV2Pretrainer:
    neck = dict(
        type=PatchAggregationNeck, arch=ARCH, early_layer=2, num_layers=2, separate_norm=separate
    )
    return randomize(
        BEiTV2Pretrainer(
            backbone=dict(
                type=BEiTV2Backbone,
                **ENCODER,
                position='shared',
                out_type='raw',
                with_mask_token=True,
            ),
            neck=neck if aggregation else None,
            head=dict(type=MIMHead, embed_dims=32, num_codes=24, separate_head=separate),
            tokenizer=dict(type=VQKDTokenizer),
        ),
        seed,
    )


def tokenizer(seed: int = 0) -> VQKDTokenizer:
    return randomize(
        VQKDTokenizer(encoder=ENCODER, decoder=DECODER, quantizer=CODES, target_dims=12), seed
    )
