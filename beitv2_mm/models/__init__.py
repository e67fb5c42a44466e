"""Modules that configs name."""

from .aggregation_neck import PatchAggregationNeck
from .arch import ARCHS, Arch, get_arch
from .backbone import BEiTV2Backbone, MaskedFeatures
from .mim_head import MIMHead
from .pretrainer import BEiTV2Pretrainer
from .teacher import TimmTeacher
from .tokenizer import VQKDTokenizer

__all__ = [
    'ARCHS',
    'Arch',
    'BEiTV2Backbone',
    'BEiTV2Pretrainer',
    'MIMHead',
    'MaskedFeatures',
    'PatchAggregationNeck',
    'TimmTeacher',
    'VQKDTokenizer',
    'get_arch',
]
