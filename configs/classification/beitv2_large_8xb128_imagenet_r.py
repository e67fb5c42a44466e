"""Classifier on ImageNet-R, large.

Command: bash tools/dist_test.sh \
    configs/classification/beitv2_large_8xb128_imagenet_r.py CHECKPOINT 8
Hardware: 8 GPUs.
Published: 69.94 top-1 (MIM of 1600 epochs, no ImageNet-21k). Measured here: nothing.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.imagenet_r import *

model.update(backbone=dict(arch='large'), head=dict(in_channels=1024))
