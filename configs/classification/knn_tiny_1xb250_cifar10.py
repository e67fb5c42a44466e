"""k-NN of the quickstart's network on CIFAR-10: 10k training images vote on the 10k test images.

Command: python tools/test.py configs/classification/knn_tiny_1xb250_cifar10.py \
    quickstart_out/pretrain/epoch_3.pth
    (a random network for comparison: the checkpoint of a linear probe of one)
Hardware: two CPU cores, one to two minutes. Published: nothing. Measured here: see README.md.
"""

from mmengine.config import read_base
from mmpretrain.models import ClsDataPreprocessor

from beitv2_mm.engine import KNNHook, KNNMetric
from beitv2_mm.models import BEiTV2Backbone, FeatureExtractor

with read_base():
    from .._base_.cifar10_data import *
    from .._base_.default_runtime import *

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
        arch=dict(embed_dims=128, num_layers=4, num_heads=4),
        img_size=32,
        patch_size=4,
        position='layerwise',
        out_type='avg_featmap',
    ),
)

bank = dict(test_dataloader)
bank['dataset'] = dict(bank['dataset'], data_root='data/cifar10/train', samples_per_class=1000)
test_evaluator = dict(type=KNNMetric, bank=bank, k=20, temperature=0.07)
custom_hooks = custom_hooks + [dict(type=KNNHook)]

# Nothing is trained here.
train_dataloader = None
val_dataloader = None
val_cfg = None
