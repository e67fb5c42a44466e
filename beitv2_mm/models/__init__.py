"""Modules that configs name."""

from beitv2_mm.layers.arch import ARCHS, Arch, get_arch
from beitv2_mm.models.aggregation_neck import PatchAggregationNeck
from beitv2_mm.models.backbone import BEiTV2Backbone, Features
from beitv2_mm.models.feature_extractor import FeatureExtractor
from beitv2_mm.models.feature_pyramid import BEiTV2FeaturePyramid
from beitv2_mm.models.mim_head import MIMHead
from beitv2_mm.models.pretrainer import BEiTV2Pretrainer
from beitv2_mm.models.teacher import TimmTeacher
from beitv2_mm.models.tokenizer import VQKDTokenizer

__all__ = [
    'ARCHS',
    'Arch',
    'BEiTV2Backbone',
    'BEiTV2FeaturePyramid',
    'BEiTV2Pretrainer',
    'FeatureExtractor',
    'Features',
    'MIMHead',
    'PatchAggregationNeck',
    'TimmTeacher',
    'VQKDTokenizer',
    'get_arch',
]
