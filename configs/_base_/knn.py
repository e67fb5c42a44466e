"""Weighted k-NN on ImageNet-1k: all training images vote (4 GB for a network of width 768)."""

from mmengine.config import read_base
from mmpretrain.models import ClsDataPreprocessor

from beitv2_mm.engine import KNNHook, KNNMetric
from beitv2_mm.models import BEiTV2Backbone, FeatureExtractor

with read_base():
    from .default_runtime import *
    from .imagenet_data import *

model = dict(
    type=FeatureExtractor,
    data_preprocessor=dict(
        type=ClsDataPreprocessor,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    backbone=dict(
        type=BEiTV2Backbone,
        arch='base',
        img_size=224,
        patch_size=16,
        position='layerwise',
        out_type='avg_featmap',
    ),
)

bank = dict(test_dataloader)
bank['dataset'] = dict(bank['dataset'], data_root='data/imagenet/train')
test_evaluator = dict(type=KNNMetric, bank=bank, k=20, temperature=0.07)
custom_hooks = custom_hooks + [dict(type=KNNHook)]

# Nothing is trained here.
train_dataloader = None
val_dataloader = None
val_cfg = None
val_evaluator = None
