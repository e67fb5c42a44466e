"""Masked image modelling, large, 1600 epochs: optimizer and gradients sharded by DeepSpeed ZeRO-2.

Command: pip install 'deepspeed>=0.19'; on every node, with its NODE_RANK (HOST is that of rank 0),
    NNODES=8 NODE_RANK=0 MASTER_ADDR=HOST bash tools/dist_train.sh \
    configs/pretrain/beitv2_large_64xb32_1600e_in1k_zero.py 8
Hardware: 64 GPUs, 32 images each. Published: 87.3 top-1 after fine-tuning. Measured here: nothing
at this size, and nothing on a GPU; small, on two processes on the CPU (DeepSpeed 0.19.8), its
losses are those of DDP, and it resumes exactly (tests/test_zero.py).
"""

from mmengine._strategy import DeepSpeedStrategy
from mmengine._strategy.deepspeed import DeepSpeedOptimWrapper
from mmengine.config import read_base
from torch.optim import AdamW

from beitv2_mm.engine import StrategyRunner

with read_base():
    from .beitv2_large_64xb32_1600e_in1k import *

runner_type = StrategyRunner
strategy = dict(
    type=DeepSpeedStrategy,
    # weights stay float32, as the frozen tokenizer and the images do
    config=dict(torch_autocast=dict(enabled=True, dtype='bfloat16')),
    gradient_clipping=3.0,
    zero_optimization=dict(stage=2, overlap_comm=True, contiguous_gradients=True),
)
optim_wrapper = dict(
    type=DeepSpeedOptimWrapper,
    optimizer=dict(type=AdamW, lr=1.5e-3, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=optim_wrapper['paramwise_cfg'],
)
