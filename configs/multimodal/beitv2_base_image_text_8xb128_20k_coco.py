"""Image and text on the base network, COCO captions, 224 px, from ImageNet-21k weights.

Command: bash tools/dist_train.sh configs/multimodal/beitv2_base_image_text_8xb128_20k_coco.py 8
Hardware: 8 GPUs, 128 pairs each. Published: nothing. Measured here: nothing.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.image_text import *
