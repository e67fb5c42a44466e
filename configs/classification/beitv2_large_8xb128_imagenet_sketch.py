"""Classifier on ImageNet-Sketch, large.

Command: bash tools/dist_test.sh \
    configs/classification/beitv2_large_8xb128_imagenet_sketch.py CHECKPOINT 8
Hardware: 8 GPUs. Published: nothing. Measured here: nothing.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.imagenet_sketch import *

model.update(backbone=dict(arch='large'), head=dict(in_channels=1024))
