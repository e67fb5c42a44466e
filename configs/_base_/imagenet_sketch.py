"""An ImageNet-1k classifier on ImageNet-Sketch: folders named by WordNet id."""

from mmengine.config import read_base

from beitv2_mm.engine import SubsetAccuracy

with read_base():
    from .classifier import *

model.update(backbone=dict(init_cfg=None), train_cfg=None)
test_dataloader.update(dataset=dict(data_root='data/sketch'))
test_evaluator = dict(type=SubsetAccuracy, topk=(1, 5))

# Nothing is trained here.
train_dataloader = None
train_cfg = None
optim_wrapper = None
param_scheduler = None
val_dataloader = None
val_cfg = None
val_evaluator = None
