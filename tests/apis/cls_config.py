from mmcv.transforms import LoadImageFromFile
from mmengine.config import read_base
from mmpretrain.datasets import CenterCrop, PackInputs, ResizeEdge
from mmpretrain.models import ImageClassifier, LinearClsHead

from beitv2_mm.models import BEiTV2Backbone

with read_base():
    from ...configs._base_.default_runtime import *
    from ...configs._base_.imagenet_data import *

model = dict(
    type=ImageClassifier,
    data_preprocessor=data_preprocessor,
    backbone=dict(
        type=BEiTV2Backbone,
        arch=dict(embed_dims=32, num_layers=3, num_heads=4, mlp_ratio=2.0),
        img_size=64,
        init_cfg=dict(type='Pretrained', checkpoint='https://nowhere.invalid/x.pth'),
    ),
    head=dict(type=LinearClsHead, num_classes=10, in_channels=32),
)
test_pipeline = [
    dict(type=LoadImageFromFile, imdecode_backend='pillow'),
    dict(type=ResizeEdge, scale=64, edge='short', interpolation='bicubic', backend='pillow'),
    dict(type=CenterCrop, crop_size=64),
    dict(type=PackInputs),
]
test_dataloader.update(num_workers=0, persistent_workers=False, batch_size=5)
test_dataloader.dataset.update(data_root='tests/data/cifar10', pipeline=test_pipeline)
