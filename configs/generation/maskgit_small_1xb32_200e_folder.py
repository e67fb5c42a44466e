"""Masked generation of images like those of a folder, without classes.

With classes: a folder of images for each, with_label=True in the data sets, and num_classes.

Command: python tools/train.py configs/generation/maskgit_small_1xb32_200e_folder.py \
    --cfg-options model.tokenizer.init_cfg.checkpoint=TOKENIZER.pth \
    model.pixel_decoder.init_cfg.checkpoint=DECODER.pth \
    train_dataloader.dataset.data_root=IMAGES val_dataloader.dataset.data_root=IMAGES
The same folder twice: validation images are held out of it.
Hardware: one GPU of 16 GB. Published: nothing. Measured here: nothing.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.folder_generation import *
    from .._base_.maskgit import *

model.update(
    tokenizer=small_tokenizer,
    backbone=dict(arch=dict(embed_dims=384, num_layers=12, num_heads=6)),
    num_classes=0,
    guidance=1.0,
    pixel_decoder=dict(
        **small_pixel_decoder,
        init_cfg=dict(
            checkpoint='work_dirs/pixel_decoder_small_1xb32_100e_folder/epoch_100.pth',
        ),
    ),
)
train_cfg.update(max_epochs=200, val_interval=10)
train_dataloader.update(dataset=folder)
val_dataloader.update(dataset=dict(folder, subset='val'))
test_dataloader = val_dataloader
auto_scale_lr.update(base_batch_size=32)
