"""Masked image modelling, large, 1600 epochs: parameters and optimizer sharded by FSDP.

Command: on every node, with its own NODE_RANK (HOST is that of rank 0),
    NNODES=8 NODE_RANK=0 MASTER_ADDR=HOST bash tools/dist_train.sh \
    configs/pretrain/beitv2_large_64xb32_1600e_in1k_fsdp.py 8
Hardware: 64 GPUs, 32 images each. Published: 87.3 top-1 after fine-tuning. Measured here: nothing
at this size; small, its losses are those of DDP (tests/test_strategies.py).
"""

from mmengine.config import read_base

from beitv2_mm.engine import BlockShardedStrategy, StrategyRunner

with read_base():
    from .beitv2_large_64xb32_1600e_in1k import *

runner_type = StrategyRunner
strategy = dict(type=BlockShardedStrategy)
optim_wrapper.update(dtype='bfloat16')
