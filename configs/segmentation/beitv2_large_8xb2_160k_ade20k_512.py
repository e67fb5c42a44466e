"""UPerNet on ADE20K, large, 512 px, from MIM of 1600 epochs.

Command: bash tools/dist_train.sh configs/segmentation/beitv2_large_8xb2_160k_ade20k_512.py 8
Hardware: 8 GPUs, 2 images each. Published: 56.7 mIoU. Measured here: nothing.
"""

from mmengine.config import read_base

with read_base():
    from .beitv2_base_8xb2_160k_ade20k_512 import *

model.update(
    backbone=dict(
        arch='large',
        out_indices=(7, 11, 15, 23),
        layer_scale_init_value=1e-6,
        drop_path_rate=0.2,
        init_cfg=dict(
            checkpoint='https://github.com/addf400/files/releases/download/BEiT-v2/'
            'beitv2_large_patch16_224_pt1k.pth',
        ),
    ),
    decode_head=dict(in_channels=[1024, 1024, 1024, 1024], channels=1024),
    auxiliary_head=dict(in_channels=1024),
)
optim_wrapper.update(optimizer=dict(lr=3e-5), paramwise_cfg=dict(layer_decay_rate=0.9))
