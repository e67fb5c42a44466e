"""Masked generation of codes by class, ImageNet-1k, 256 px, 300 epochs, MaskGIT's recipe.

Command: bash tools/dist_train.sh configs/generation/maskgit_base_8xb32_300e_in1k.py 8
Hardware: 8 GPUs, 32 images each. Published: FID 6.18 of MaskGIT on VQGAN's codes, not on these.
Measured here: nothing.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.maskgit import *
