"""Masked image modelling with patch aggregation, large, 300 epochs.

Command: on every node, with its own NODE_RANK (HOST is that of rank 0),
    NNODES=8 NODE_RANK=0 MASTER_ADDR=HOST bash tools/dist_train.sh \
    configs/pretrain/beitv2_large_64xb32_300e_in1k.py 8
Hardware: 64 GPUs, 32 images each. Published: 86.6 top-1 after fine-tuning. Measured here: nothing.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.mim_in1k import *

model.update(backbone=dict(arch='large'))
train_dataloader.update(batch_size=32)
