"""Cascade Mask R-CNN in place of Mask R-CNN: three box heads, each with a stricter overlap."""

from mmdet.models import CascadeRCNN, CascadeRoIHead, SmoothL1Loss
from mmengine.config import read_base

with read_base():
    from .detector import *

rcnn = model['train_cfg']['rcnn']
roi_head = model['roi_head']
box_head = dict(
    roi_head['bbox_head'],
    reg_class_agnostic=True,
    loss_bbox=dict(type=SmoothL1Loss, beta=1.0, loss_weight=1.0),
)
model.update(type=CascadeRCNN)
model['roi_head'] = dict(
    roi_head,
    type=CascadeRoIHead,
    num_stages=3,
    stage_loss_weights=[1, 0.5, 0.25],
    bbox_head=[
        dict(box_head, bbox_coder=dict(type=DeltaXYWHBBoxCoder, target_stds=stds))
        for stds in (
            [0.1, 0.1, 0.2, 0.2],
            [0.05, 0.05, 0.1, 0.1],
            [0.033, 0.033, 0.067, 0.067],
        )
    ],
)
model['train_cfg']['rcnn'] = [
    dict(
        rcnn,
        assigner=dict(
            box_assigner,
            pos_iou_thr=overlap,
            neg_iou_thr=overlap,
            min_pos_iou=overlap,
            match_low_quality=False,
        ),
    )
    for overlap in (0.5, 0.6, 0.7)
]
