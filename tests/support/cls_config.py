from mmengine.config import read_base
from mmengine.dataset import DefaultSampler, default_collate
from mmengine.runner import TestLoop
from mmpretrain.datasets import CenterCrop, PackInputs, ResizeEdge
from mmpretrain.evaluation import Accuracy
from mmpretrain.models import ClsDataPreprocessor, ImageClassifier, LinearClsHead

from beitv2_mm.datasets import ImageFolder, LoadImageFromFile
from beitv2_mm.models import BEiTV2Backbone

with read_base():
    from ...configs._base_.default_runtime import *

model = dict(
    type=ImageClassifier,
    data_preprocessor=dict(
        type=ClsDataPreprocessor,
        num_classes=10,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    backbone=dict(
        type=BEiTV2Backbone,
        arch=dict(embed_dims=32, num_layers=3, num_heads=4, mlp_ratio=2.0),
        img_size=64,
        init_cfg=dict(type='Pretrained', checkpoint='https://nowhere.invalid/x.pth'),
    ),
    head=dict(type=LinearClsHead, num_classes=10, in_channels=32),
)
test_dataloader = dict(
    batch_size=5,
    num_workers=0,
    sampler=dict(type=DefaultSampler, shuffle=False),
    collate_fn=dict(type=default_collate),
    dataset=dict(
        type=ImageFolder,
        data_root='tests/data/cifar10',
        with_label=True,
        test_mode=True,
        pipeline=[
            dict(type=LoadImageFromFile),
            dict(type=ResizeEdge, scale=64, interpolation='bicubic', backend='pillow'),
            dict(type=CenterCrop, crop_size=64),
            dict(type=PackInputs),
        ],
    ),
)
test_evaluator = dict(type=Accuracy, topk=(1, 5))
test_cfg = dict(type=TestLoop)
