"""Small segmentors."""

import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS

from beitv2_mm.segmentation import BEiTV2Segmentor
from support.tiny import ARCH, randomize

WIDTH = ARCH['embed_dims']


def segmentor_config(patch_size: int = 16, classes: int = 3, **test_cfg: object) -> dict:
    heads = dict(patch_size=patch_size, num_classes=classes, norm_cfg=dict(type='BN'))
    return ConfigDict(
        type='beitv2_mm.BEiTV2Segmentor',
        backbone=dict(
            type='beitv2_mm.BEiTV2Backbone',
            arch={**ARCH, 'num_layers': 4},
            img_size=4 * patch_size,
            patch_size=patch_size,
            out_type='featmap',
            out_indices=(0, 1, 2, 3),
        ),
        decode_head=dict(
            type='beitv2_mm.BEiTV2UPerHead', in_channels=[WIDTH] * 4, channels=8, **heads
        ),
        auxiliary_head=dict(
            type='beitv2_mm.BEiTV2FCNHead',
            in_channels=WIDTH,
            channels=8,
            num_convs=1,
            concat_input=False,
            **heads,
        ),
        test_cfg={'mode': 'whole', **test_cfg},
    )


def build_segmentor(patch_size: int = 16, **test_cfg: object) -> BEiTV2Segmentor:
    torch.manual_seed(0)
    return randomize(MODELS.build(segmentor_config(patch_size, **test_cfg))).eval()
