"""Cascade Mask R-CNN on the large network, COCO, 1024 px; MIM weights.

Command: on every node, with its own NODE_RANK (HOST is that of rank 0),
    NNODES=8 NODE_RANK=0 MASTER_ADDR=HOST bash tools/dist_train.sh \
    configs/detection/beitv2_large_cascade_64xb1_100e_coco.py 8
Hardware: 64 GPUs, one image each. Published: no figure of BEiT v2; MAE with this recipe reaches
57.6 / 50.0 box / mask AP (ViTDet, table 5). Measured here: nothing.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.cascade_detector import *
    from .._base_.detector_large import *

model.update(large)
optim_wrapper.update(paramwise_cfg=dict(layer_decay_rate=layer_decay_rate))
