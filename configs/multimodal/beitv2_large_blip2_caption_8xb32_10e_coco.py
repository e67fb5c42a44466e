"""BLIP-2's Q-Former writes captions of what a frozen BEiT v2 sees, COCO captions, 224 px.

mmpretrain's config with another vision encoder. The language model (OPT, frozen) comes from the
hub of transformers; the Q-Former starts from scratch. Extra `vl`.

Command: bash tools/dist_train.sh configs/multimodal/beitv2_large_blip2_caption_8xb32_10e_coco.py 8
Hardware: 8 GPUs, 32 images each. Published: nothing. Measured here: nothing of this size.
"""

_base_ = 'mmpretrain::blip2/blip2-opt2.7b_8xb32_caption.py'
custom_imports = dict(imports=['beitv2_mm'], allow_failed_imports=False)

data_preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
image_size = 224
model = dict(
    vision_backbone=dict(
        _delete_=True,
        type='beitv2_mm.BEiTV2Backbone',
        arch='large',
        img_size=image_size,
        out_type='raw',
        final_norm=False,  # BLIP-2 has a norm of its own
        frozen_stages=24,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://github.com/addf400/files/releases/download/BEiT-v2/'
            'beitv2_large_patch16_224_pt1k_ft21k.pth',
        ),
    ),
    multimodal_backbone=dict(vision_model_width=1024),
)
resize = dict(
    type='Resize', scale=(image_size, image_size), interpolation='bicubic', backend='pillow'
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='RandomResizedCrop',
        scale=image_size,
        crop_ratio_range=(0.5, 1.0),
        interpolation='bicubic',
        backend='pillow',
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(type='CleanCaption', keys='gt_caption'),
    dict(type='PackInputs', algorithm_keys=['gt_caption'], meta_keys=['image_id']),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    resize,
    dict(type='PackInputs', meta_keys=['image_id']),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(optimizer=dict(lr=1e-4))  # mmpretrain's 1e-5 is for a trained Q-Former
auto_scale_lr = dict(base_batch_size=256)
