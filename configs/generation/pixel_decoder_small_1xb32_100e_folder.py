"""Pixels from the codes of a tokenizer of your own images (vqkd_small_clip_1xb64_100e_folder).

Command: python tools/train.py configs/generation/pixel_decoder_small_1xb32_100e_folder.py \
    --cfg-options model.tokenizer.init_cfg.checkpoint=TOKENIZER.pth \
    train_dataloader.dataset.data_root=IMAGES val_dataloader.dataset.data_root=IMAGES
The same folder twice: validation images are held out of it.
Hardware: one GPU of 16 GB. Published: nothing. Measured here: nothing.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.folder_generation import *
    from .._base_.pixel_decoder import *

model.update(tokenizer=small_tokenizer, **small_pixel_decoder)
train_cfg.update(max_epochs=100, val_interval=5)
train_dataloader.update(dataset=folder)
val_dataloader.update(dataset=dict(folder, subset='val'))
test_dataloader = val_dataloader
auto_scale_lr.update(base_batch_size=32)
