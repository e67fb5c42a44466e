"""LLaVA describes what BEiT v2 sees: mmpretrain's model with another vision encoder, 336 px.

mmpretrain only runs LLaVA and does not train it, so this needs a projector and a language model
that were trained on BEiT v2 elsewhere. `pretrained` takes a backbone in this package's own names,
as tools/convert_checkpoint.py writes it. Extra `vl`.

Command: python tools/test.py configs/multimodal/beitv2_large_llava_caption_1xb8_coco.py LLAVA.pth
Hardware: 1 GPU, 8 images. Published: nothing. Measured here: nothing of this size.
"""

_base_ = 'mmpretrain::llava/llava-7b-v1.5_caption.py'
custom_imports = dict(imports=['beitv2_mm'], allow_failed_imports=False)

data_preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
model = dict(
    vision_encoder=dict(
        _delete_=True,
        type='beitv2_mm.BEiTV2Backbone',
        arch='large',
        img_size=336,
        out_type='raw',
        pretrained='beitv2_large_patch16_224_pt1k_ft21k_mm.pth',
    ),
)
