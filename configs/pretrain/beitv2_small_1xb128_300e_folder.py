"""Masked image modelling on your own folder of images (10k to 1M, no labels), one GPU.

Command: python tools/train.py configs/pretrain/beitv2_small_1xb128_300e_folder.py \
    --cfg-options model.tokenizer.init_cfg.checkpoint=TOKENIZER.pth \
    train_dataloader.dataset.data_root=IMAGES val_dataloader.dataset.data_root=IMAGES
Hardware: one GPU of 16 GB. Published: nothing. Measured here: nothing.
"""

from mmengine.config import read_base

with read_base():
    from .beitv2_base_16xb128_300e_in1k import *

model.update(
    backbone=dict(arch='small', drop_path_rate=0.1),
    neck=dict(arch='small', drop_path_rate=0.1),
    head=dict(embed_dims=384, num_codes=2048),
    tokenizer=dict(
        encoder=dict(arch='small', img_size=224, patch_size=16),
        decoder=dict(arch=dict(embed_dims=384, num_layers=3, num_heads=6)),
        quantizer=dict(num_codes=2048, dim=32),
        init_cfg=dict(
            checkpoint='work_dirs/vqkd_small_clip_1xb64_100e_folder/epoch_100.pth',
        ),
    ),
)
optim_wrapper.update(optimizer=dict(lr=5e-4, betas=(0.9, 0.98)))
auto_scale_lr = dict(base_batch_size=128)
