"""BLIP finds captions for what BEiT v2 sees and back, COCO (Karpathy's split), 384 px.

mmpretrain's config with another vision encoder, which starts from ImageNet-21k; the rest starts
from BLIP's published weights. Extra `vl`.

Command: bash tools/dist_train.sh configs/multimodal/beitv2_base_blip_retrieval_8xb32_6e_coco.py 8
Hardware: 8 GPUs, 32 images each. Published: nothing. Measured here: nothing of this size.
"""

_base_ = 'mmpretrain::blip/blip-base_8xb32_retrieval.py'
custom_imports = dict(imports=['beitv2_mm'], allow_failed_imports=False)

data_preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
model = dict(
    vision_backbone=dict(
        _delete_=True,
        type='beitv2_mm.BEiTV2Backbone',
        arch='base',
        img_size=384,
        out_type='raw',
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://github.com/addf400/files/releases/download/BEiT-v2/'
            'beitv2_base_patch16_224_pt1k_ft21k.pth',
        ),
    ),
)
load_from = (
    'https://download.openmmlab.com/mmclassification/v1/blip/'
    'blip-base_3rdparty_coco-retrieval_20230419-a1804d2c.pth'
)
auto_scale_lr = dict(base_batch_size=256)
