"""Mask R-CNN on the base network at 1024 px by ViTDet's recipe: 100 epochs of COCO in batches of
64, large-scale jitter, most blocks in windows."""

from mmdet.engine import DetVisualizationHook
from mmdet.models import (
    CrossEntropyLoss,
    DetDataPreprocessor,
    FCNMaskHead,
    L1Loss,
    MaskRCNN,
    RPNHead,
    Shared4Conv1FCBBoxHead,
    SingleRoIExtractor,
    StandardRoIHead,
)
from mmdet.models.task_modules import (
    AnchorGenerator,
    DeltaXYWHBBoxCoder,
    MaxIoUAssigner,
    RandomSampler,
)
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import read_base
from mmengine.optim import LinearLR, MultiStepLR
from mmengine.visualization import LocalVisBackend
from timm.layers import LayerNorm2d
from torch.optim import AdamW

from beitv2_mm.engine import (
    DetectionPicturesHook,
    LayerDecayOptimWrapperConstructor,
    mixed_precision,
)
from beitv2_mm.models import BEiTV2Backbone, BEiTV2FeaturePyramid

with read_base():
    from .coco_data import *
    from .iteration_runtime import *

norm_cfg = dict(type=LayerNorm2d, eps=1e-6)
box_assigner = dict(
    type=MaxIoUAssigner,
    pos_iou_thr=0.5,
    neg_iou_thr=0.5,
    min_pos_iou=0.5,
    match_low_quality=True,
    ignore_iof_thr=-1,
)
region_assigner = dict(box_assigner, pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3)

model = dict(
    type=MaskRCNN,
    data_preprocessor=dict(
        type=DetDataPreprocessor,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_mask=True,
        pad_size_divisor=64,  # whole pixels on every level
    ),
    backbone=dict(
        type=BEiTV2Backbone,
        arch='base',
        img_size=224,  # the pretrained tables, which windows of 14 take as they are
        patch_size=16,
        position='layerwise',
        out_type='featmap',
        final_norm=True,
        drop_path_rate=0.1,
        window_size=14,
        global_blocks=(2, 5, 8, 11),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://github.com/addf400/files/releases/download/BEiT-v2/'
            'beitv2_base_patch16_224_pt1k.pth',
        ),
    ),
    neck=dict(
        type=BEiTV2FeaturePyramid, in_channels=768, out_channels=256, patch_size=16, num_outs=5
    ),
    rpn_head=dict(
        type=RPNHead,
        in_channels=256,
        feat_channels=256,
        num_convs=2,
        anchor_generator=dict(
            type=AnchorGenerator,
            scales=[8],
            ratios=[0.5, 1.0, 2.0],
            strides=[4, 8, 16, 32, 64],
        ),
        bbox_coder=dict(type=DeltaXYWHBBoxCoder),
        loss_cls=dict(type=CrossEntropyLoss, use_sigmoid=True, loss_weight=1.0),
        loss_bbox=dict(type=L1Loss, loss_weight=1.0),
    ),
    roi_head=dict(
        type=StandardRoIHead,
        bbox_roi_extractor=dict(
            type=SingleRoIExtractor,
            roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=0),
            out_channels=256,
            featmap_strides=[4, 8, 16, 32],
        ),
        bbox_head=dict(
            type=Shared4Conv1FCBBoxHead,
            in_channels=256,
            conv_out_channels=256,
            fc_out_channels=1024,
            roi_feat_size=7,
            num_classes=80,
            bbox_coder=dict(type=DeltaXYWHBBoxCoder, target_stds=[0.1, 0.1, 0.2, 0.2]),
            reg_class_agnostic=False,
            norm_cfg=norm_cfg,
            loss_cls=dict(type=CrossEntropyLoss, use_sigmoid=False, loss_weight=1.0),
            loss_bbox=dict(type=L1Loss, loss_weight=1.0),
        ),
        mask_roi_extractor=dict(
            type=SingleRoIExtractor,
            roi_layer=dict(type='RoIAlign', output_size=14, sampling_ratio=0),
            out_channels=256,
            featmap_strides=[4, 8, 16, 32],
        ),
        mask_head=dict(
            type=FCNMaskHead,
            num_convs=4,
            in_channels=256,
            conv_out_channels=256,
            num_classes=80,
            norm_cfg=norm_cfg,
            loss_mask=dict(type=CrossEntropyLoss, use_mask=True, loss_weight=1.0),
        ),
    ),
    train_cfg=dict(
        rpn=dict(
            assigner=region_assigner,
            sampler=dict(
                type=RandomSampler,
                num=256,
                pos_fraction=0.5,
                neg_pos_ub=-1,
                add_gt_as_proposals=False,
            ),
            allowed_border=-1,
            pos_weight=-1,
            debug=False,
        ),
        rpn_proposal=dict(
            nms_pre=2000,
            max_per_img=1000,
            nms=dict(type='nms', iou_threshold=0.7),
            min_bbox_size=0,
        ),
        rcnn=dict(
            assigner=box_assigner,
            sampler=dict(
                type=RandomSampler,
                num=512,
                pos_fraction=0.25,
                neg_pos_ub=-1,
                add_gt_as_proposals=True,
            ),
            mask_size=28,
            pos_weight=-1,
            debug=False,
        ),
    ),
    test_cfg=dict(
        rpn=dict(
            nms_pre=1000,
            max_per_img=1000,
            nms=dict(type='nms', iou_threshold=0.7),
            min_bbox_size=0,
        ),
        rcnn=dict(
            score_thr=0.05,
            nms=dict(type='nms', iou_threshold=0.5),  # type='soft_nms' for soft suppression
            max_per_img=100,
            mask_thr_binary=0.5,
        ),
    ),
)

train_cfg.update(max_iters=184375, val_interval=5000)
optim_wrapper = dict(
    type=mixed_precision,
    optimizer=dict(type=AdamW, lr=1e-4, betas=(0.9, 0.999), weight_decay=0.1, fused=True),
    constructor=LayerDecayOptimWrapperConstructor,
    paramwise_cfg=dict(layer_decay_rate=0.7, norm_decay_mult=0.0, flat_decay_mult=0.0),
)
param_scheduler = [
    dict(type=LinearLR, start_factor=0.001, by_epoch=False, begin=0, end=250),
    dict(type=MultiStepLR, by_epoch=False, milestones=[163889, 177546], gamma=0.1),
]
auto_scale_lr = dict(base_batch_size=64)

default_hooks.update(checkpoint=dict(interval=5000), visualization=dict(type=DetVisualizationHook))
visualizer = dict(type=DetLocalVisualizer, vis_backends=[dict(type=LocalVisBackend)])
custom_hooks = custom_hooks + [dict(type=DetectionPicturesHook)]
