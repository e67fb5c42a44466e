"""BEiT v1 style masked image modelling (no patch aggregation) with BEiT v2's tokenizer, base.

Command: NNODES=2 bash tools/dist_train.sh configs/pretrain/beit_base_16xb128_300e_in1k.py 8
Hardware: 16 GPUs, 128 images each. Published: nothing. Measured here: nothing.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.mim_in1k import *

model.update(neck=None)
train_dataloader.update(batch_size=128)
optim_wrapper.update(optimizer=dict(betas=(0.9, 0.98)))
