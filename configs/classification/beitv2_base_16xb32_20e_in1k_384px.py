"""Fine-tuning at 384 px, base, from the classifier at 224 px that saw ImageNet-21k.

Command: NNODES=2 bash tools/dist_train.sh \
    configs/classification/beitv2_base_16xb32_20e_in1k_384px.py 8
Hardware: 16 GPUs, 32 images each. Published: nothing. Measured here: nothing.

Schedule, rates and weight decay are ours, after BEiT's manner of raising the resolution: the
reference states none. Loading the classifier resizes its bias tables from 14 x 14 to 24 x 24.
"""

from mmengine.config import read_base

with read_base():
    from .._base_.classifier_384 import *

load_from = (
    'https://github.com/addf400/files/releases/download/BEiT-v2/'
    'beitv2_base_patch16_224_pt1k_ft21kto1k.pth'
)
