"""From nothing but a folder of images to a pretrained network, and from that to a classifier."""

from beitv2_mm.folder.job import FinetuneOptions, PretrainOptions, finetune, pretrain

__all__ = ['FinetuneOptions', 'PretrainOptions', 'finetune', 'pretrain']
