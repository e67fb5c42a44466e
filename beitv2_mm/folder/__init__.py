"""From nothing but a folder of images to a pretrained network, and from that to a classifier or a
segmentor and what these say of new images."""

from beitv2_mm.folder.job import finetune, pretrain, segment_train
from beitv2_mm.folder.options import FinetuneOptions, PretrainOptions, SegmentOptions
from beitv2_mm.folder.predict import predict

__all__ = [
    'FinetuneOptions',
    'PretrainOptions',
    'SegmentOptions',
    'finetune',
    'predict',
    'pretrain',
    'segment_train',
]
