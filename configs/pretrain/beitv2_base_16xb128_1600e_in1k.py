"""Masked image modelling with patch aggregation, base, 1600 epochs.

Command: on every node, with its own NODE_RANK (HOST is that of rank 0),
    NNODES=2 NODE_RANK=0 MASTER_ADDR=HOST bash tools/dist_train.sh \
    configs/pretrain/beitv2_base_16xb128_1600e_in1k.py 8
Hardware: 16 GPUs, 128 images each. Published: 85.5 top-1 after fine-tuning. Measured here: nothing.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.mim_in1k import *

model.update(backbone=dict(drop_path_rate=0.1), neck=dict(drop_path_rate=0.1))
optim_wrapper.update(optimizer=dict(betas=(0.9, 0.999)))
train_cfg.update(max_epochs=1600, val_interval=20)
