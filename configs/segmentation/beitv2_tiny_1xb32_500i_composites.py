"""UPerNet on composites: real Fashion-MNIST items pasted on real CIFAR-10 pictures, 32 px.

Command: python tools/prepare_composites.py --cifar data/cifar10 --out data/composites
    python tools/train.py configs/segmentation/beitv2_tiny_1xb32_500i_composites.py \
    --cfg-options model.backbone.init_cfg.1.checkpoint=PRETRAINED.pth
    (from scratch: model.backbone.init_cfg.1.checkpoint=None)
Hardware: two CPU cores, two minutes. Published: nothing.
Measured here: 43.2 mIoU from the quickstart's pretraining, 39.1 from scratch (README.md).
"""

from mmcv.transforms import RandomFlip
from mmengine.config import read_base
from mmengine.dataset import InfiniteSampler, pseudo_collate
from mmseg.datasets import PackSegInputs
from mmseg.evaluation import IoUMetric

from beitv2_mm.datasets import LoadImageFromFile
from beitv2_mm.segmentation import ImageMaskFolder, LoadMask

with read_base():
    from .._base_.loaders import *
    from .._base_.segmentor import *

classes = (
    'background', 't-shirt', 'trouser', 'pullover', 'dress', 'coat',
    'sandal', 'shirt', 'sneaker', 'bag', 'ankle boot',
)  # fmt: skip

model.update(
    data_preprocessor=dict(size=(32, 32)),
    backbone=dict(
        arch=dict(embed_dims=128, num_layers=4, num_heads=4),
        img_size=32,
        patch_size=4,
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.0,
        init_cfg=[
            dict(type='TruncNormal', layer=['Conv2d', 'Linear'], std=0.1),  # 0.02 is for width 768
            dict(type='Pretrained', checkpoint='work_dirs/pretrain.pth'),
        ],
    ),
    decode_head=dict(patch_size=4, in_channels=[128, 128, 128, 128], channels=64, num_classes=11),
    auxiliary_head=dict(patch_size=4, in_channels=128, channels=64, num_classes=11),
    test_cfg=dict(mode='whole'),
)
train_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=LoadMask),
    dict(type=RandomFlip, prob=0.5),
    dict(type=PackSegInputs),
]
train_dataloader.update(
    batch_size=32,
    num_workers=1,
    pin_memory=False,
    drop_last=False,
    sampler=dict(type=InfiniteSampler),
    collate_fn=dict(type=pseudo_collate),
    dataset=dict(
        type=ImageMaskFolder,
        classes=classes,
        data_root='data/composites',
        data_prefix=dict(img_path='images/train', seg_map_path='masks/train'),
        pipeline=train_pipeline,
    ),
)
test_pipeline = [dict(type=LoadImageFromFile), dict(type=LoadMask), dict(type=PackSegInputs)]
val_dataloader.update(
    batch_size=50,
    num_workers=1,
    pin_memory=False,
    collate_fn=dict(type=pseudo_collate),
    dataset=dict(
        type=ImageMaskFolder,
        classes=classes,
        data_root='data/composites',
        data_prefix=dict(img_path='images/val', seg_map_path='masks/val'),
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = dict(
    val_dataloader,
    dataset=dict(
        val_dataloader['dataset'],
        data_prefix=dict(img_path='images/test', seg_map_path='masks/test'),
    ),
)
val_evaluator = dict(type=IoUMetric, iou_metrics=['mIoU'])
test_evaluator = val_evaluator

train_cfg.update(max_iters=500, val_interval=500)
optim_wrapper.update(optimizer=dict(lr=6e-3, fused=False), paramwise_cfg=dict(layer_decay_rate=0.9))
param_scheduler.update(warmup=100, start_lr=6e-5)
auto_scale_lr = dict(base_batch_size=32)
default_hooks.update(checkpoint=dict(interval=500))
