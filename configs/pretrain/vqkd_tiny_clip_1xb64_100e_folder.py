"""Tokenizer for your own folder of images (10k to 1M, no labels), tiny, one GPU, CLIP teacher.

Command: python tools/train.py configs/pretrain/vqkd_tiny_clip_1xb64_100e_folder.py \
    --cfg-options train_dataloader.dataset.data_root=IMAGES val_dataloader.dataset.data_root=IMAGES
The same folder twice: validation images are held out of it.
Hardware: one GPU of 16 GB. Published: nothing. Measured here: nothing.

A smaller codebook than the paper's and revival of unused codes: on little data the reference
recipe leaves most of 8192 codes unused.
"""

from mmengine.config import read_base

with read_base():
    from .vqkd_small_clip_1xb64_100e_folder import *

model.update(
    encoder=dict(arch='tiny'),
    decoder=dict(arch=dict(embed_dims=192, num_heads=3)),
    quantizer=dict(num_codes=1024),
)
optim_wrapper.update(optimizer=dict(lr=2e-4))
val_evaluator.update(num_codes=1024)
test_evaluator = val_evaluator
