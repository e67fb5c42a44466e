"""Masked generation of the codes of CIFAR-10 by class (32 px, 64 codes).

After tools/quickstart.py and the pixel decoder of pixel_decoder_tiny_1xb64_1e_cifar10.
Command: python tools/train.py configs/generation/maskgit_tiny_1xb64_4e_cifar10.py
Hardware: two CPU cores, some minutes. Published: nothing. Measured here: Frechet distance 933, 924,
940 in three seeds (docs/guides/generation.md).
"""

from mmengine.config import read_base
from mmengine.hooks import EMAHook
from torch.optim import AdamW

from beitv2_mm.engine import WarmupCosineLR
from beitv2_mm.generation import MaskedGenerator

with read_base():
    from .._base_.cifar10_generation import *

model = dict(
    type=MaskedGenerator,
    tokenizer=tokenizer,
    backbone=dict(arch=dict(embed_dims=128, num_layers=4, num_heads=4)),
    num_classes=10,
    pixel_decoder=dict(
        **pixel_decoder,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/pixel_decoder_tiny_1xb64_1e_cifar10/epoch_1.pth',
        ),
    ),
    steps=8,
    guidance=3.0,
    temperature=8.0,
)
train_dataloader.update(dataset=dict(samples_per_class=2000))
val_evaluator.update(fields=('decoded', 'generated'))
test_evaluator = val_evaluator

train_cfg.update(max_epochs=4, val_interval=4)
optim_wrapper.update(
    optimizer=dict(type=AdamW, lr=2e-3, betas=(0.9, 0.96), weight_decay=0.045),
    paramwise_cfg=dict(custom_keys={'relative_position_bias_table': dict(lr_mult=10.0)}),
)
param_scheduler = dict(
    type=WarmupCosineLR, warmup=0.5, start_lr=2e-5, min_lr=2e-5, convert_to_iter_based=True
)
custom_hooks = custom_hooks + [
    dict(type=EMAHook, ema_type='ExponentialMovingAverage', momentum=0.005)
]
