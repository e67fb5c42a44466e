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
    from .._base_.fast_pipelines import *
    from .._base_.tokenizer import *

model.update(
    encoder=dict(arch='tiny'),
    decoder=dict(arch=dict(embed_dims=192, num_layers=3, num_heads=3)),
    quantizer=dict(num_codes=1024, revive_after=100),
)
optim_wrapper.update(optimizer=dict(lr=2e-4))
val_evaluator.update(num_codes=1024)
test_evaluator = val_evaluator
auto_scale_lr.update(base_batch_size=64)

# 2000 images, or a tenth of a small folder, are kept out of training to validate on.
train_dataloader.update(
    dataset=dict(data_root='data/images', val_images=2000, pipeline=fast_tokenizer_pipeline)
)
val_dataloader.update(dataset=dict(data_root='data/images', subset='val', val_images=2000))
test_dataloader = val_dataloader
