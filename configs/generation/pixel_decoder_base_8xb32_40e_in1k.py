"""Pixels from the codes of the official 1-block CLIP tokenizer, ImageNet-1k, 256 px, 40 epochs.

Command: bash tools/dist_train.sh configs/generation/pixel_decoder_base_8xb32_40e_in1k.py 8
Hardware: 8 GPUs, 32 images each. Published: nothing of this decoder. Measured here: nothing.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.pixel_decoder import *
