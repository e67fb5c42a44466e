"""ImageNet-1k at 256 px with labels, cropped as VQGAN does: near the middle, most of the image."""

from mmcv.transforms import RandomFlip
from mmengine.config import read_base
from mmpretrain.datasets import CenterCrop, PackInputs, RandomCrop, ResizeEdge

from beitv2_mm.datasets import ImageFolder, LoadImageFromFile

with read_base():
    from .loaders import *

resize = dict(type=ResizeEdge, scale=256, edge='short', interpolation='bicubic', backend='pillow')
train_pipeline = [
    dict(type=LoadImageFromFile),
    resize,
    dict(type=RandomCrop, crop_size=256),
    dict(type=RandomFlip, prob=0.5),
    dict(type=PackInputs),
]
train_dataloader.update(
    batch_size=32,
    dataset=dict(
        type=ImageFolder,
        data_root='data/imagenet/train',
        with_label=True,
        pipeline=train_pipeline,
    ),
)
val_pipeline = [
    dict(type=LoadImageFromFile),
    resize,
    dict(type=CenterCrop, crop_size=256),
    dict(type=PackInputs),
]
val_dataloader.update(
    batch_size=32,
    dataset=dict(
        type=ImageFolder,
        data_root='data/imagenet/val',
        with_label=True,
        pipeline=val_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
