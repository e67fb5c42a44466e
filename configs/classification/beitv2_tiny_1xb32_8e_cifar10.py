"""Fine-tuning a small network on 250 labels a class of CIFAR-10.

Command: python tools/quickstart.py, which runs it from the pretrained backbone and from scratch.
Hardware: two CPU cores, a minute a run. Measured figures: README.md (quickstart).
"""

from mmcv.transforms import RandomFlip
from mmengine.config import read_base
from mmengine.hooks import LoggerHook
from mmengine.optim import OptimWrapper
from mmpretrain.datasets import PackInputs, RandomCrop
from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor
from mmpretrain.evaluation import Accuracy
from mmpretrain.models import ClsDataPreprocessor, ImageClassifier, LabelSmoothLoss, LinearClsHead
from torch.optim import AdamW

from beitv2_mm.datasets import LoadImageFromFile
from beitv2_mm.engine import ResumableEpochBasedTrainLoop, WarmupCosineLR
from beitv2_mm.models import BEiTV2Backbone

with read_base():
    from .._base_.cifar10_data import *
    from .._base_.default_runtime import *

model = dict(
    type=ImageClassifier,
    data_preprocessor=dict(
        type=ClsDataPreprocessor,
        num_classes=10,
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
        init_cfg=[
            dict(type='TruncNormal', layer=['Conv2d', 'Linear'], std=0.1),  # 0.02 is for width 768
            dict(type='Pretrained', checkpoint='work_dirs/pretrain.pth'),  # None: from scratch
        ],
    ),
    head=dict(
        type=LinearClsHead,
        num_classes=10,
        in_channels=128,
        loss=dict(type=LabelSmoothLoss, label_smooth_val=0.1, mode='original'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02 * 0.001),
    ),
)

train_dataloader.update(
    batch_size=32,
    dataset=dict(
        samples_per_class=250,
        pipeline=[
            dict(type=LoadImageFromFile),
            dict(type=RandomCrop, crop_size=32, padding=4),
            dict(type=RandomFlip, prob=0.5),
            dict(type=PackInputs),
        ],
    ),
)
val_evaluator = dict(type=Accuracy, topk=(1,))
test_evaluator = val_evaluator

train_cfg = dict(type=ResumableEpochBasedTrainLoop, max_epochs=8, val_interval=8)
optim_wrapper = dict(
    type=OptimWrapper,
    optimizer=dict(type=AdamW, lr=2e-3, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
    constructor=LearningRateDecayOptimWrapperConstructor,
    paramwise_cfg=dict(
        layer_decay_rate=0.75,
        norm_decay_mult=0.0,
        flat_decay_mult=0.0,
        custom_keys={'cls_token': dict(decay_mult=0.0)},
    ),
)
param_scheduler = dict(
    type=WarmupCosineLR, warmup=1, start_lr=2e-5, min_lr=2e-5, convert_to_iter_based=True
)
auto_scale_lr = dict(base_batch_size=32)

default_hooks.update(logger=dict(type=LoggerHook, interval=20))
