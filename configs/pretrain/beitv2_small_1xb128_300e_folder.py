"""Masked image modelling on your own folder of images (10k to 1M, no labels), small, one GPU.

Command: python tools/train.py configs/pretrain/beitv2_small_1xb128_300e_folder.py \
    --cfg-options model.tokenizer.init_cfg.checkpoint=TOKENIZER.pth \
    train_dataloader.dataset.data_root=IMAGES val_dataloader.dataset.data_root=IMAGES
The same folder twice: validation images are held out of it.
Hardware: one GPU of 16 GB. Published: nothing. Measured here: nothing.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.fast_pipelines import *
    from .._base_.mim import *

model.update(
    backbone=dict(arch='small', drop_path_rate=0.1),
    neck=dict(drop_path_rate=0.1),
    head=dict(num_codes=2048),
    tokenizer=dict(
        encoder=dict(arch='small'),
        decoder=dict(arch=dict(embed_dims=384, num_layers=3, num_heads=6)),
        quantizer=dict(num_codes=2048),
        init_cfg=dict(checkpoint='work_dirs/vqkd_small_clip_1xb64_100e_folder/epoch_100.pth'),
    ),
)
optim_wrapper.update(optimizer=dict(lr=5e-4))
auto_scale_lr.update(base_batch_size=128)

# 2000 images, or a tenth of a small folder, are kept out of training to validate on.
train_dataloader.update(
    dataset=dict(data_root='data/images', val_images=2000, pipeline=fast_mim_pipeline)
)
val_dataloader.update(dataset=dict(data_root='data/images', subset='val', val_images=2000))
test_dataloader = val_dataloader
