"""A pixel decoder with the losses of VQGAN (Esser et al., 2021, section 3.1)."""

from mmengine.config import read_base
from torch.optim import AdamW

from beitv2_mm.engine import WarmupCosineLR
from beitv2_mm.generation import PixelDecoder
from beitv2_mm.models import TimmTeacher

with read_base():
    from .generation import *

model = dict(
    type=PixelDecoder,
    tokenizer=tokenizer,
    teacher=dict(type=TimmTeacher, model='resnet50.tv_in1k', stride=8),
    discriminator=dict(width=64, depth=3),
    perceptual_weight=1.0,
    adversarial_weight=0.1,
    adversarial_start=20000,
    **pixel_decoder,
)
train_cfg.update(max_epochs=40)
optim_wrapper.update(
    optimizer=dict(type=AdamW, lr=1e-4, betas=(0.5, 0.9), weight_decay=1e-4, fused=True)
)
param_scheduler = dict(
    type=WarmupCosineLR, warmup=1, start_lr=1e-6, min_lr=1e-6, convert_to_iter_based=True
)
auto_scale_lr = dict(base_batch_size=256)
