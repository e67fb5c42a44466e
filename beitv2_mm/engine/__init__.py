from beitv2_mm.engine.adapt_hook import AdaptCheckpointHook
from beitv2_mm.engine.codebook_hook import CodebookHook
from beitv2_mm.engine.knn import KNNHook, KNNMetric, knn_scores
from beitv2_mm.engine.metrics import MIMMetric, TokenizerMetric, codebook_statistics
from beitv2_mm.engine.picture_hooks import (
    AttentionPicturesHook,
    CodePicturesHook,
    PredictionPicturesHook,
    SegmentationPicturesHook,
)
from beitv2_mm.engine.precision import mixed_precision
from beitv2_mm.engine.run_page_hook import RunPageHook
from beitv2_mm.engine.seed_hook import EpochSeedHook
from beitv2_mm.engine.subset_accuracy import SubsetAccuracy
from beitv2_mm.engine.unreadable_hook import UnreadableImagesHook

__all__ = [
    'AdaptCheckpointHook',
    'AttentionPicturesHook',
    'CodePicturesHook',
    'CodebookHook',
    'EpochSeedHook',
    'KNNHook',
    'KNNMetric',
    'MIMMetric',
    'PredictionPicturesHook',
    'RunPageHook',
    'SegmentationPicturesHook',
    'SubsetAccuracy',
    'TokenizerMetric',
    'UnreadableImagesHook',
    'codebook_statistics',
    'knn_scores',
    'mixed_precision',
]
