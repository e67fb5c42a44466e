"""UPerNet on ADE20K, large, 512 px, from MIM and ImageNet-21k.

Command: bash tools/dist_train.sh \
    configs/segmentation/beitv2_large_8xb2_160k_ade20k_512_from_in21k.py 8
Hardware: 8 GPUs, 2 images each. Published: 57.54 mIoU, 68.78 mAcc, 86.22 aAcc. Measured here:
nothing.
"""

from mmengine.config import read_base

with read_base():
    from .beitv2_large_8xb2_160k_ade20k_512 import *

model.update(
    backbone=dict(
        init_cfg=dict(
            checkpoint='https://github.com/addf400/files/releases/download/BEiT-v2/'
            'beitv2_large_patch16_224_pt1k_ft21k.pth',
        ),
    ),
)
