"""An ImageNet-1k classifier on ImageNet-A, -R or -Sketch: folders named by WordNet id."""

from mmengine.config import read_base

from beitv2_mm.engine import SubsetAccuracy

with read_base():
    from .evaluation import *

test_evaluator = dict(type=SubsetAccuracy, topk=(1, 5))
