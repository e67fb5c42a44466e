"""CIFAR-10 as class folders (tools/prepare_cifar10.py): loading and splits.

100 images of each class are held out of the training folder to choose settings on.
"""

from mmcv.transforms import RandomFlip
from mmengine.config import read_base
from mmpretrain.datasets import PackInputs

from beitv2_mm.datasets import ImageFolder, LoadImageFromFile

with read_base():
    from .loaders import *

val_per_class = 100

train_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=RandomFlip, prob=0.5),
    dict(type=PackInputs),
]
train_dataloader.update(
    batch_size=64,
    num_workers=1,
    pin_memory=False,
    dataset=dict(
        type=ImageFolder,
        data_root='data/cifar10/train',
        with_label=True,
        subset='train',
        val_per_class=val_per_class,
        pipeline=train_pipeline,
    ),
)
val_pipeline = [dict(type=LoadImageFromFile), dict(type=PackInputs)]
val_dataloader.update(
    batch_size=250,
    num_workers=1,
    pin_memory=False,
    dataset=dict(
        type=ImageFolder,
        data_root='data/cifar10/train',
        with_label=True,
        subset='val',
        val_per_class=val_per_class,
        pipeline=val_pipeline,
        test_mode=True,
    ),
)
test_dataloader = dict(
    **{key: value for key, value in val_dataloader.items() if key != 'dataset'},
    dataset=dict(
        type=ImageFolder,
        data_root='data/cifar10/test',
        with_label=True,
        pipeline=val_pipeline,
        test_mode=True,
    ),
)
