"""BEiT v1 style masked image modelling (no patch aggregation) with BEiT v2's tokenizer, base.

Command: on every node, with its own NODE_RANK (HOST is that of rank 0),
    NNODES=2 NODE_RANK=0 MASTER_ADDR=HOST bash tools/dist_train.sh \
    configs/pretrain/beit_base_16xb128_300e_in1k.py 8
Hardware: 16 GPUs, 128 images each. Published: nothing. Measured here: nothing.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.mim_in1k import *

model.update(neck=None)
