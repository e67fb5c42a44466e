"""UPerNet on ADE20K, base, 512 px, from MIM of 1600 epochs.

Command: bash tools/dist_train.sh configs/segmentation/beitv2_base_8xb2_160k_ade20k_512.py 8
Hardware: 8 GPUs, 2 images each. Published: 53.1 mIoU. Measured here: nothing.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.ade20k_data import *
    from .._base_.segmentor import *
