"""Masked image modelling on your own folder of images (10k to 1M, no labels), tiny, one GPU.

Command: python tools/train.py configs/pretrain/beitv2_tiny_1xb128_300e_folder.py \
    --cfg-options model.tokenizer.init_cfg.checkpoint=TOKENIZER.pth \
    train_dataloader.dataset.data_root=IMAGES val_dataloader.dataset.data_root=IMAGES
The same folder twice: validation images are held out of it.
Hardware: one GPU of 16 GB. Published: nothing. Measured here: nothing.
"""

from mmengine.config import read_base

with read_base():
    from .beitv2_small_1xb128_300e_folder import *

model.update(
    backbone=dict(arch='tiny'),
    head=dict(num_codes=1024),
    tokenizer=dict(
        encoder=dict(arch='tiny'),
        decoder=dict(arch=dict(embed_dims=192, num_heads=3)),
        quantizer=dict(num_codes=1024),
        init_cfg=dict(checkpoint='work_dirs/vqkd_tiny_clip_1xb64_100e_folder/epoch_100.pth'),
    ),
)
