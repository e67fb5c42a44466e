"""UPerNet on ADE20K, base, 640 px, from MIM of 1600 epochs.

Command: bash tools/dist_train.sh configs/segmentation/beitv2_base_8xb2_160k_ade20k_640.py 8
Hardware: 8 GPUs, 2 images each. Published: nothing. Measured here: nothing.
"""

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
tta_pipeline[1]['transforms'][0][0].update(scale=(1280, 320))
tta_pipeline[1]['transforms'][0][1].update(scale=(1920, 480))
tta_pipeline[1]['transforms'][0][2].update(scale=(2560, 640))
tta_pipeline[1]['transforms'][0][3].update(scale=(3200, 800))
tta_pipeline[1]['transforms'][0][4].update(scale=(3840, 960))
tta_pipeline[1]['transforms'][0][5].update(scale=(4480, 1120))
train_dataloader.update(dataset=dict(pipeline=train_pipeline))
val_dataloader.update(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
