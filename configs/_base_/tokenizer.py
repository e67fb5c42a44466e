"""VQ-KD tokenizer on ImageNet-1k: base encoder, 3-block decoder, CLIP teacher, 100 epochs."""

from mmengine.config import read_base
from torch.optim import AdamW

from beitv2_mm.engine import (
    CodebookHook,
    CodePicturesHook,
    ResumableEpochBasedTrainLoop,
    WarmupCosineLR,
    mixed_precision,
)
from beitv2_mm.models import TimmTeacher, VQKDTokenizer

with read_base():
    from .default_runtime import *
    from .tokenizer_data import *

model = dict(
    type=VQKDTokenizer,
    encoder=dict(arch='base', img_size=224, patch_size=16),
    decoder=dict(arch=dict(embed_dims=768, num_layers=3, num_heads=12)),
    quantizer=dict(num_codes=8192, dim=32, decay=0.99, beta=1.0, kmeans_init=True),
    target_dims=512,
    teacher=dict(
        type=TimmTeacher, model='vit_base_patch16_clip_quickgelu_224.openai', projection=True
    ),
)

train_cfg = dict(type=ResumableEpochBasedTrainLoop, max_epochs=100, val_interval=1)
optim_wrapper = dict(
    type=mixed_precision,
    optimizer=dict(type=AdamW, lr=5e-5, betas=(0.9, 0.99), weight_decay=1e-4, fused=True),
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
auto_scale_lr = dict(base_batch_size=512)

custom_hooks = custom_hooks + [dict(type=CodebookHook), dict(type=CodePicturesHook, interval=10)]
