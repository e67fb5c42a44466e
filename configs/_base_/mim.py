"""Masked image modelling with patch aggregation, base, 300 epochs, on any folder of images.

The paper's recipes of 1600 epochs also drop paths (0.1) and have betas of 0.9 and 0.999.
"""

from mmengine.config import read_base
from torch.optim import AdamW

from beitv2_mm.engine import (
    AttentionPicturesHook,
    PredictionPicturesHook,
    ResumableEpochBasedTrainLoop,
    WarmupCosineLR,
    mixed_precision,
)
from beitv2_mm.models import (
    BEiTV2Backbone,
    BEiTV2Pretrainer,
    MIMHead,
    PatchAggregationNeck,
    VQKDTokenizer,
)

with read_base():
    from .default_runtime import *
    from .mim_data import *

model = dict(
    type=BEiTV2Pretrainer,
    backbone=dict(
        type=BEiTV2Backbone,
        arch='base',
        img_size=224,
        patch_size=16,
        position='shared',
        out_type='raw',
        drop_path_rate=0.0,
        with_mask_token=True,
        with_cp='selective',  # the output of GELU is not kept, see docs/performance.md
    ),
    neck=dict(
        type=PatchAggregationNeck,  # sizes and early layer (depth - 3) follow the backbone
        num_layers=2,
        drop_path_rate=0.0,
        with_cp='selective',
    ),
    head=dict(type=MIMHead, num_codes=8192),
    tokenizer=dict(
        type=VQKDTokenizer,
        encoder=dict(arch='base', img_size=224, patch_size=16),
        decoder=dict(arch=dict(embed_dims=768, num_layers=3, num_heads=12)),
        quantizer=dict(num_codes=8192, dim=32),
        target_dims=512,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://github.com/addf400/files/releases/download/BEiT-v2/'
            'vqkd_encoder_base_decoder_3x768x12_clip-d5036aa7.pth',
        ),
    ),
)

train_cfg = dict(type=ResumableEpochBasedTrainLoop, max_epochs=300, val_interval=10)
optim_wrapper = dict(
    type=mixed_precision,
    optimizer=dict(type=AdamW, lr=1.5e-3, betas=(0.9, 0.98), weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=3.0),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        flat_decay_mult=0.0,
        custom_keys={'cls_token': dict(decay_mult=0.0), 'pos_embed': dict(decay_mult=0.0)},
    ),
)
param_scheduler = dict(
    type=WarmupCosineLR, warmup=10, start_lr=1e-6, min_lr=1e-5, convert_to_iter_based=True
)
model_wrapper_cfg.update(static_graph=True)
auto_scale_lr = dict(base_batch_size=2048)

custom_hooks = custom_hooks + [dict(type=PredictionPicturesHook), dict(type=AttentionPicturesHook)]
