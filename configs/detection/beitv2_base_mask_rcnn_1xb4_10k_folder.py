"""Mask R-CNN on the base network for a folder of your images and a json in COCO's layout.

Change data_root, the names below it, and num_classes; `tools/prepare_coco.py` checks the json.

Command: python tools/train.py configs/detection/beitv2_base_mask_rcnn_1xb4_10k_folder.py
Hardware: one GPU, four images of 512 px. Published: nothing. Measured here: nothing.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.detector import *

# Change these.
data_root = 'data/mine/'
train_file, train_images = 'annotations/train.json', 'images/train/'
val_file, val_images = 'annotations/val.json', 'images/val/'
num_classes = 10
size = (512, 512)

model.update(
    roi_head=dict(bbox_head=dict(num_classes=num_classes), mask_head=dict(num_classes=num_classes))
)
train_pipeline[3].update(scale=size)
train_pipeline[4].update(crop_size=size)
train_pipeline[6].update(size=size)
test_pipeline[1].update(scale=size)
tta_pipeline[1].update(
    transforms=[
        [
            dict(type=Resize, scale=(int(size[0] * r), int(size[1] * r)), keep_ratio=True)
            for r in tta_ratios
        ],
        *tta_pipeline[1]['transforms'][1:],
    ]
)
train_dataloader.update(
    batch_size=4,
    dataset=dict(
        data_root=data_root,
        ann_file=train_file,
        data_prefix=dict(img=train_images),
        pipeline=train_pipeline,
    ),
)
val_dataloader.update(
    dataset=dict(
        data_root=data_root,
        ann_file=val_file,
        data_prefix=dict(img=val_images),
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader
val_evaluator.update(ann_file=data_root + val_file)
test_evaluator = val_evaluator
train_cfg.update(max_iters=10000, val_interval=1000)
param_scheduler[1].update(milestones=[8000, 9500])
auto_scale_lr = dict(base_batch_size=4)
default_hooks.update(checkpoint=dict(interval=1000))
