"""VQ-KD tokenizer, base encoder, 3-block decoder, CLIP ViT-B/16 teacher, 100 epochs: the base
recipe as it stands.

Command: bash tools/dist_train.sh configs/pretrain/vqkd_base_clip_8xb64_100e_in1k.py 8
Hardware: 8 GPUs, 64 images each. Published: 97 % of the codes used. Measured here: nothing.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.tokenizer import *
