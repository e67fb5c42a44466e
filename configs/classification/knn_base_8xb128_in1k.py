"""k-NN evaluation on ImageNet-1k of any base checkpoint.

Command: bash tools/dist_test.sh configs/classification/knn_base_8xb128_in1k.py CHECKPOINT 8
Hardware: 8 GPUs. Published: nothing. Measured here: nothing.

CHECKPOINT is a backbone in any format that beitv2_mm.checkpoint reads (masked image modelling or
classifier).
"""

from mmengine.config import read_base

with read_base():
    from .._base_.knn import *

model.update(backbone=dict(arch='base'))
