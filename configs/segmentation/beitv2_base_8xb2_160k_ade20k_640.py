"""UPerNet on ADE20K, base, 640 px, from MIM of 1600 epochs.

Command: bash tools/dist_train.sh configs/segmentation/beitv2_base_8xb2_160k_ade20k_640.py 8
Hardware: 8 GPUs, 2 images each. Published: nothing. Measured here: nothing.
"""

from mmcv.transforms import Resize
from mmengine.config import read_base

with read_base():
    from .beitv2_base_8xb2_160k_ade20k_512 import *

model.update(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(img_size=640),
    test_cfg=dict(crop_size=(640, 640), stride=(426, 426)),
)
train_pipeline[2].update(scale=(2560, 640))
train_pipeline[3].update(crop_size=(640, 640))
test_pipeline[1].update(scale=(2560, 640))
tta_pipeline[1].update(
    transforms=[
        [
            dict(type=Resize, scale=(int(2560 * r), int(640 * r)), keep_ratio=True)
            for r in tta_ratios
        ],
        *tta_pipeline[1]['transforms'][1:],
    ]
)
train_dataloader.update(dataset=dict(pipeline=train_pipeline))
val_dataloader.update(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
