"""Evaluation on ImageNet-1k of any base classifier at 224 px.

Command: bash tools/dist_test.sh \
    configs/classification/beitv2_base_8xb128_eval_in1k.py CHECKPOINT 8
Hardware: 8 GPUs; one, or a CPU, by tools/test.py. Measured here: nothing. Published:
beitv2_base_patch16_224_pt1k_300e_ft1k.pth 85.0 top-1; beitv2_base_patch16_224_pt1k_ft1k.pth
85.5, 97.5 top-5; beitv2_base_patch16_224_pt1k_ft21kto1k.pth 86.5, 98.0 top-5.

CHECKPOINT is a path or URL in any format that beitv2_mm.checkpoint reads. The published files:
https://github.com/addf400/files/releases/download/BEiT-v2/
"""

from mmengine.config import read_base

with read_base():
    from .._base_.evaluation import *

model.update(backbone=dict(arch='base'), head=dict(in_channels=768))
