"""Mask R-CNN on the base network, COCO, 1024 px, for eight GPUs: 12 epochs, batches of 16.

Command: bash tools/dist_train.sh configs/detection/beitv2_base_mask_rcnn_8xb2_12e_coco.py 8
Hardware: 8 GPUs, two images each. Published: nothing. Measured here: nothing.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.detector import *

train_dataloader.update(batch_size=2)
train_cfg.update(max_iters=87960, val_interval=7330)  # 7330 iterations an epoch
param_scheduler[1].update(milestones=[58640, 80630])
auto_scale_lr = dict(base_batch_size=16)
