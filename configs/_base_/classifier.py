"""Fine-tuning on ImageNet-1k: base network, mixup and cutmix, layer-wise learning-rate decay."""

from mmengine.config import read_base
from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor
from mmpretrain.models import (
    ClsDataPreprocessor,
    CutMix,
    ImageClassifier,
    LabelSmoothLoss,
    LinearClsHead,
    Mixup,
)
from torch.optim import AdamW

from beitv2_mm.engine import ResumableEpochBasedTrainLoop, WarmupCosineLR, mixed_precision
from beitv2_mm.models import BEiTV2Backbone

with read_base():
    from .default_runtime import *
    from .imagenet_data import *

model = dict(
    type=ImageClassifier,
    data_preprocessor=dict(
        type=ClsDataPreprocessor,
        num_classes=1000,
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
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://github.com/addf400/files/releases/download/BEiT-v2/'
            'beitv2_base_patch16_224_pt1k_300e.pth',
        ),
    ),
    head=dict(
        type=LinearClsHead,
        num_classes=1000,
        in_channels=768,
        loss=dict(type=LabelSmoothLoss, label_smooth_val=0.1, mode='original'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02 * 0.001),
    ),
    train_cfg=dict(augments=[dict(type=Mixup, alpha=0.8), dict(type=CutMix, alpha=1.0)]),
)

train_cfg = dict(type=ResumableEpochBasedTrainLoop, max_epochs=100, val_interval=1)
optim_wrapper = dict(
    type=mixed_precision,
    optimizer=dict(type=AdamW, lr=5e-4, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
    constructor=LearningRateDecayOptimWrapperConstructor,
    paramwise_cfg=dict(
        layer_decay_rate=0.65,
        norm_decay_mult=0.0,
        flat_decay_mult=0.0,
        custom_keys={'cls_token': dict(decay_mult=0.0), 'pos_embed': dict(decay_mult=0.0)},
    ),
)
param_scheduler = dict(
    type=WarmupCosineLR, warmup=20, start_lr=1e-6, min_lr=1e-6, convert_to_iter_based=True
)
model_wrapper_cfg.update(static_graph=True)
auto_scale_lr = dict(base_batch_size=1024)
