"""Masked generation of the codes of CIFAR-10 by class (32 px, 64 codes).

Command: python tools/train.py configs/generation/maskgit_tiny_1xb64_5e_cifar10.py \
    --cfg-options model.tokenizer.init_cfg.checkpoint=TOKENIZER.pth \
    model.pixel_decoder.init_cfg.checkpoint=DECODER.pth
Hardware: two CPU cores. Published: nothing. Measured here: nothing yet.
"""

from mmengine.config import read_base
from mmengine.hooks import EMAHook, LoggerHook
from mmengine.optim import OptimWrapper
from torch.optim import AdamW

from beitv2_mm.engine import GeneratedPicturesHook, ResumableEpochBasedTrainLoop, WarmupCosineLR
from beitv2_mm.generation import ImageQualityMetric, MaskedGenerator
from beitv2_mm.models import TimmTeacher

with read_base():
    from .._base_.cifar10_data import *
    from .._base_.cifar10_tokenizer import tokenizer
    from .._base_.default_runtime import *

model = dict(
    type=MaskedGenerator,
    tokenizer=tokenizer,
    backbone=dict(arch=dict(embed_dims=128, num_layers=4, num_heads=4)),
    num_classes=10,
    pixel_decoder=dict(
        backbone=dict(arch=dict(embed_dims=128, num_layers=3, num_heads=4)),
        width=32,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/pixel_decoder_tiny_1xb64_1e_cifar10/epoch_1.pth',
        ),
    ),
    steps=8,
    guidance=2.0,
)
train_dataloader.update(dataset=dict(samples_per_class=2000))
val_evaluator = dict(
    type=ImageQualityMetric,
    teacher=dict(
        type=TimmTeacher,
        model='tf_efficientnet_lite0',
        checkpoint='data/teacher.safetensors',
        input_size=128,
        stride=32,
    ),
    fields=('decoded', 'generated'),
)
test_evaluator = val_evaluator

train_cfg = dict(type=ResumableEpochBasedTrainLoop, max_epochs=5, val_interval=5)
optim_wrapper = dict(
    type=OptimWrapper,
    optimizer=dict(type=AdamW, lr=2e-3, betas=(0.9, 0.96), weight_decay=0.045),
    clip_grad=dict(max_norm=3.0),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        flat_decay_mult=0.0,
        custom_keys={'relative_position_bias_table': dict(lr_mult=10.0)},
    ),
)
param_scheduler = dict(
    type=WarmupCosineLR, warmup=0.5, start_lr=2e-5, min_lr=2e-5, convert_to_iter_based=True
)
auto_scale_lr = dict(base_batch_size=64)

default_hooks.update(logger=dict(type=LoggerHook, interval=20))
custom_hooks = custom_hooks + [
    dict(type=EMAHook, ema_type='ExponentialMovingAverage', momentum=0.005),
    dict(type=GeneratedPicturesHook),
]
