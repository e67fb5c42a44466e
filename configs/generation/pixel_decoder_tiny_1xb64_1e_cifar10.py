"""Pixels from the codes of CIFAR-10 (32 px, 64 codes): what the quickstart's tokenizer keeps.

Command: python tools/train.py configs/generation/pixel_decoder_tiny_1xb64_1e_cifar10.py \
    --cfg-options model.tokenizer.init_cfg.checkpoint=TOKENIZER.pth
Hardware: two CPU cores. Published: nothing. Measured here: nothing yet.
"""

from mmengine.config import read_base
from mmengine.hooks import LoggerHook
from mmengine.optim import OptimWrapper
from torch.optim import AdamW

from beitv2_mm.engine import GeneratedPicturesHook, ResumableEpochBasedTrainLoop, WarmupCosineLR
from beitv2_mm.generation import ImageQualityMetric, PixelDecoder
from beitv2_mm.models import TimmTeacher

with read_base():
    from .._base_.cifar10_data import *
    from .._base_.cifar10_tokenizer import tokenizer
    from .._base_.default_runtime import *

teacher = dict(
    type=TimmTeacher,
    model='tf_efficientnet_lite0',
    checkpoint='data/teacher.safetensors',
    input_size=64,
    stride=8,
)
model = dict(
    type=PixelDecoder,
    tokenizer=tokenizer,
    backbone=dict(arch=dict(embed_dims=128, num_layers=3, num_heads=4)),
    width=32,
    teacher=teacher,
    perceptual_weight=0.1,
)
train_dataloader.update(dataset=dict(samples_per_class=2500))
val_evaluator = dict(
    type=ImageQualityMetric,
    teacher=dict(
        type=TimmTeacher,
        model='tf_efficientnet_lite0',
        checkpoint='data/teacher.safetensors',
        input_size=128,
        stride=32,
    ),
)
test_evaluator = val_evaluator

train_cfg = dict(type=ResumableEpochBasedTrainLoop, max_epochs=1)
optim_wrapper = dict(
    type=OptimWrapper,
    optimizer=dict(type=AdamW, lr=2e-3, betas=(0.9, 0.99), weight_decay=1e-4),
    paramwise_cfg=dict(norm_decay_mult=0.0, flat_decay_mult=0.0),
    clip_grad=dict(max_norm=3.0),
)
param_scheduler = dict(
    type=WarmupCosineLR, warmup=0.2, start_lr=2e-5, min_lr=2e-5, convert_to_iter_based=True
)
auto_scale_lr = dict(base_batch_size=64)

default_hooks.update(logger=dict(type=LoggerHook, interval=20))
custom_hooks = custom_hooks + [dict(type=GeneratedPicturesHook)]
