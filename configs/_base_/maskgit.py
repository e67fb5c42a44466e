"""MaskGIT (Chang et al., 2022, section 4.1 and appendix): 24 layers, width 768, 300 epochs.

Its optimizer has betas of 0.9 and 0.96, a weight decay of 0.045 and label smoothing of 0.1. Classes
are dropped for one image in ten and guide the sampling, as in MUSE (arXiv 2301.00704).
"""

from mmengine.config import read_base
from mmengine.hooks import EMAHook
from torch.optim import AdamW

from beitv2_mm.engine import WarmupCosineLR
from beitv2_mm.generation import MaskedGenerator

with read_base():
    from .generation import *

model = dict(
    type=MaskedGenerator,
    tokenizer=tokenizer,
    backbone=dict(
        arch=dict(embed_dims=768, num_layers=24, num_heads=12),
        img_size=grid,
        drop_rate=0.1,
        layer_scale_init_value=0.1,
    ),
    num_classes=1000,
    pixel_decoder=dict(
        **pixel_decoder,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/pixel_decoder_base_8xb32_40e_in1k/epoch_40.pth',
        ),
    ),
    steps=12,
    guidance=3.0,
    temperature=4.5,
)
val_evaluator.update(fields=('decoded', 'generated'))
test_evaluator = val_evaluator

train_cfg.update(max_epochs=300, val_interval=20)
optim_wrapper.update(
    optimizer=dict(type=AdamW, lr=1e-4, betas=(0.9, 0.96), weight_decay=0.045, fused=True)
)
param_scheduler = dict(
    type=WarmupCosineLR, warmup=5, start_lr=1e-6, min_lr=1e-6, convert_to_iter_based=True
)
auto_scale_lr = dict(base_batch_size=256)
custom_hooks = custom_hooks + [
    dict(type=EMAHook, ema_type='ExponentialMovingAverage', momentum=1e-4)
]
