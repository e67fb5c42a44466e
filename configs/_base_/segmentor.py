"""UPerNet on the base network at 512 px: 160k iterations, layer-wise learning-rate decay."""

from mmengine.config import read_base
from mmengine.visualization import LocalVisBackend
from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor
from mmseg.engine import SegVisualizationHook
from mmseg.models import CrossEntropyLoss, SegDataPreProcessor
from torch.optim import AdamW

from beitv2_mm.engine import (
    SegmentationPicturesHook,
    WarmupLinearLR,
    mixed_precision,
)
from beitv2_mm.models import BEiTV2Backbone
from beitv2_mm.segmentation import (
    BEiTV2FCNHead,
    BEiTV2Segmentor,
    BEiTV2UPerHead,
    SegLocalVisualizer,
)

with read_base():
    from .iteration_runtime import *

norm_cfg = dict(type='BN', requires_grad=True)
sync_bn = 'torch'  # the runner's switch: SyncBN on several GPUs, BN on one

model = dict(
    type=BEiTV2Segmentor,
    data_preprocessor=dict(
        type=SegDataPreProcessor,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        size=(512, 512),  # smaller crops are padded
        pad_val=0,
        seg_pad_val=255,
    ),
    backbone=dict(
        type=BEiTV2Backbone,
        arch='base',
        img_size=512,
        patch_size=16,
        position='layerwise',
        out_type='featmap',
        out_indices=(3, 5, 7, 11),
        layer_scale_init_value=0.1,
        drop_path_rate=0.15,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://github.com/addf400/files/releases/download/BEiT-v2/'
            'beitv2_base_patch16_224_pt1k.pth',
        ),
    ),
    decode_head=dict(
        type=BEiTV2UPerHead,
        patch_size=16,
        in_channels=[768, 768, 768, 768],
        in_index=[0, 1, 2, 3],
        channels=768,
        pool_scales=(1, 2, 3, 6),
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type=CrossEntropyLoss, use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=dict(
        type=BEiTV2FCNHead,
        patch_size=16,
        in_channels=768,
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type=CrossEntropyLoss, use_sigmoid=False, loss_weight=0.4),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341), windows_per_batch=8),
)

train_cfg.update(max_iters=160000, val_interval=16000)
optim_wrapper = dict(
    type=mixed_precision,
    optimizer=dict(type=AdamW, lr=5e-5, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
    constructor=LearningRateDecayOptimWrapperConstructor,
    # the class token is decayed here, unlike in classification: the reference does so
    paramwise_cfg=dict(layer_decay_rate=0.75, norm_decay_mult=0.0, flat_decay_mult=0.0),
)
param_scheduler = dict(
    type=WarmupLinearLR,
    warmup=1500,
    start_lr=1e-6,  # the official file starts, by mmcv's rules, at 1e-6 of the rate
    min_lr=0.0,
    by_epoch=False,
)
auto_scale_lr = dict(base_batch_size=16)

default_hooks.update(
    checkpoint=dict(interval=16000),
    visualization=dict(type=SegVisualizationHook),
)
visualizer = dict(type=SegLocalVisualizer, vis_backends=[dict(type=LocalVisBackend)])
custom_hooks = custom_hooks + [dict(type=SegmentationPicturesHook)]
