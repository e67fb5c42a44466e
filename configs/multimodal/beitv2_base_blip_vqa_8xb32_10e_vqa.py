"""BLIP answers questions about what BEiT v2 sees, VQAv2, 480 px.

mmpretrain's config with another vision encoder, which starts from ImageNet-21k; the rest starts
from BLIP's published weights. Visual Genome is left out, whose questions mmpretrain 1.2.0 cannot
read. Extra `vl`.

Command: bash tools/dist_train.sh configs/multimodal/beitv2_base_blip_vqa_8xb32_10e_vqa.py 8
Hardware: 8 GPUs, 32 images each. Published: nothing. Measured here: nothing of this size.
"""

_base_ = 'mmpretrain::blip/blip-base_8xb32_vqa.py'
custom_imports = dict(imports=['beitv2_mm'], allow_failed_imports=False)

data_preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
model = dict(
    vision_backbone=dict(
        _delete_=True,
        type='beitv2_mm.BEiTV2Backbone',
        arch='base',
        img_size=480,
        out_type='raw',
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://github.com/addf400/files/releases/download/BEiT-v2/'
            'beitv2_base_patch16_224_pt1k_ft21k.pth',
        ),
    ),
)
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='COCOVQA',
        data_root='data/coco',
        data_prefix='train2014',
        question_file='annotations/v2_OpenEnded_mscoco_train2014_questions.json',
        ann_file='annotations/v2_mscoco_train2014_annotations.json',
        pipeline={{_base_.train_pipeline}},
    ),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=8,
    dataset=dict(
        type='COCOVQA',
        data_root='data/coco',
        data_prefix='val2014',
        question_file='annotations/v2_OpenEnded_mscoco_val2014_questions.json',
        ann_file='annotations/v2_mscoco_val2014_annotations.json',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(480, 480), interpolation='bicubic', backend='pillow'),
            dict(type='CleanCaption', keys=['question']),
            dict(
                type='PackInputs',
                algorithm_keys=['question', 'gt_answer', 'gt_answer_weight'],
                meta_keys=['question_id'],
            ),
        ],
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='VQAAcc')
val_cfg = dict()
load_from = (
    'https://download.openmmlab.com/mmclassification/v1/blip/'
    'blip-base_3rdparty-capflit_vqa_20230505-81488941.pth'
)
auto_scale_lr = dict(base_batch_size=256)
