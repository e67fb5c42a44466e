"""Masked image modelling on ImageNet-1k; validation also logs k-NN accuracy of the features.

The bank holds 100 images of each class, 300 MB for a network of width 768.
"""

from mmengine.config import read_base
from mmengine.dataset import DefaultSampler, default_collate
from mmpretrain.datasets import CenterCrop, PackInputs, ResizeEdge

from beitv2_mm.datasets import ImageFolder, LoadImageFromFile
from beitv2_mm.engine import KNNHook, KNNMetric, MIMMetric

with read_base():
    from .mim import *

val_dataloader.update(dataset=dict(with_label=True))
val_evaluator = [
    dict(type=MIMMetric),
    dict(
        type=KNNMetric,
        bank=dict(
            batch_size=128,
            num_workers=8,
            persistent_workers=False,
            sampler=dict(type=DefaultSampler, shuffle=False),
            collate_fn=dict(type=default_collate),
            dataset=dict(
                type=ImageFolder,
                data_root='data/imagenet/train',
                with_label=True,
                samples_per_class=100,
                pipeline=[
                    dict(type=LoadImageFromFile),
                    dict(
                        type=ResizeEdge,
                        scale=256,
                        edge='short',
                        interpolation='bicubic',
                        backend='pillow',
                    ),
                    dict(type=CenterCrop, crop_size=224),
                    dict(type=PackInputs),
                ],
                test_mode=True,
            ),
        ),
        k=20,
        temperature=0.07,
    ),
]
test_dataloader = val_dataloader
test_evaluator = val_evaluator

custom_hooks = custom_hooks + [dict(type=KNNHook)]
