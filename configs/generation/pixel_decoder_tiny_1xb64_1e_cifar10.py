"""Pixels from the codes of CIFAR-10 (32 px, 64 codes): what the quickstart's tokenizer keeps.

After tools/quickstart.py, whose tokenizer and teacher it takes.
Command: python tools/train.py configs/generation/pixel_decoder_tiny_1xb64_1e_cifar10.py
Hardware: two CPU cores, some minutes. Published: nothing. Measured here: 20.61, 20.64, 20.64 dB of
PSNR on the test images in three seeds.
"""

from mmengine.config import read_base
from torch.optim import AdamW

from beitv2_mm.engine import WarmupCosineLR
from beitv2_mm.generation import PixelDecoder

with read_base():
    from .._base_.cifar10_generation import *

model = dict(
    type=PixelDecoder,
    tokenizer=tokenizer,
    teacher=dict(lite0, input_size=64, stride=8),
    perceptual_weight=0.1,
    **pixel_decoder,
)
train_dataloader.update(dataset=dict(samples_per_class=2500))
train_cfg.update(max_epochs=1)
optim_wrapper.update(
    optimizer=dict(type=AdamW, lr=2e-3, betas=(0.9, 0.99), weight_decay=1e-4),
)
param_scheduler = dict(
    type=WarmupCosineLR, warmup=0.2, start_lr=2e-5, min_lr=2e-5, convert_to_iter_based=True
)
