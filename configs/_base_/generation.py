"""What pixel decoders and generators share: the official 1-block CLIP tokenizer and its codes of
256-px images (16 x 16), and how good images are measured.

This tokenizer gave the best generator of arXiv 2411.04406 (FID 4.10, an autoregressive network).
"""

from mmengine.config import read_base

from beitv2_mm.engine import GeneratedPicturesHook, ResumableEpochBasedTrainLoop, mixed_precision
from beitv2_mm.generation import ImageQualityMetric
from beitv2_mm.models import TimmTeacher

with read_base():
    from .default_runtime import *
    from .generation_data import *

tokenizer = dict(
    encoder=dict(arch='base', img_size=224, patch_size=16),
    decoder=dict(arch=dict(embed_dims=768, num_layers=1, num_heads=12)),
    quantizer=dict(num_codes=8192, dim=32),
    target_dims=512,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://github.com/addf400/files/releases/download/BEiT-v2/'
        'vqkd_encoder_base_decoder_1x768x12_clip-d93179da.pth',
    ),
)
grid = (16, 16)  # 256 px
pixel_decoder = dict(
    backbone=dict(arch=dict(embed_dims=768, num_layers=8, num_heads=12), img_size=grid),
    width=64,
)
# What it gives is no FID, whose network this is not: compare only with each other.
quality = dict(type=TimmTeacher, model='resnet50.tv_in1k', stride=32)
val_evaluator = dict(type=ImageQualityMetric, teacher=quality)
test_evaluator = val_evaluator

train_cfg = dict(type=ResumableEpochBasedTrainLoop)
optim_wrapper = dict(
    type=mixed_precision,
    paramwise_cfg=dict(norm_decay_mult=0.0, flat_decay_mult=0.0),
    clip_grad=dict(max_norm=3.0),
)
custom_hooks = custom_hooks + [dict(type=GeneratedPicturesHook)]
