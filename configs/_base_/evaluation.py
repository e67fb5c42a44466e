"""An ImageNet-1k classifier to be tested, and nothing that trains."""

from mmengine.config import read_base

with read_base():
    from .classifier import *

model.update(backbone=dict(init_cfg=None), train_cfg=None)

train_dataloader = None
train_cfg = None
optim_wrapper = None
param_scheduler = None
val_dataloader = None
val_cfg = None
val_evaluator = None
