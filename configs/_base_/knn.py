"""Weighted k-NN on ImageNet-1k: all training images vote (4 GB for a network of width 768)."""

from mmengine.config import read_base

from beitv2_mm.engine import KNNHook, KNNMetric

with read_base():
    from .classifier import *

model.update(backbone=dict(drop_path_rate=0.0, init_cfg=None), train_cfg=None)

bank = dict(val_dataloader)
bank['dataset'] = dict(val_dataloader['dataset'], data_root='data/imagenet/train')
test_evaluator = dict(type=KNNMetric, bank=bank, k=20, temperature=0.07)
custom_hooks = custom_hooks + [dict(type=KNNHook)]

# Nothing is trained here.
train_dataloader = None
train_cfg = None
optim_wrapper = None
param_scheduler = None
val_dataloader = None
val_cfg = None
val_evaluator = None
