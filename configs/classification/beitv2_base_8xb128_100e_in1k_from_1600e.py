"""Fine-tuning on ImageNet-1k, base, from MIM of 1600 epochs.

Command: bash tools/dist_train.sh \
    configs/classification/beitv2_base_8xb128_100e_in1k_from_1600e.py 8
Hardware: 8 GPUs, 128 images each. Published: 85.5 top-1, 97.5 top-5. Measured here: nothing.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.classifier import *

model.update(
    backbone=dict(
        drop_path_rate=0.2,
        init_cfg=dict(
            checkpoint='https://github.com/addf400/files/releases/download/BEiT-v2/'
            'beitv2_base_patch16_224_pt1k.pth',
        ),
    ),
)
optim_wrapper.update(paramwise_cfg=dict(layer_decay_rate=0.6))
