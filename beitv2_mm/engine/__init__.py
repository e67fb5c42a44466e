"""From a config to a running training: hooks, metrics, loops, strategies."""

from beitv2_mm.engine.hooks.adapt import AdaptCheckpointHook
from beitv2_mm.engine.hooks.checkpoint import AtomicCheckpointHook
from beitv2_mm.engine.hooks.codebook import CodebookHook
from beitv2_mm.engine.hooks.compile import CompileHook
from beitv2_mm.engine.hooks.detection_pictures import DetectionPicturesHook
from beitv2_mm.engine.hooks.divergence import DivergenceGuardHook
from beitv2_mm.engine.hooks.generated_pictures import GeneratedPicturesHook
from beitv2_mm.engine.hooks.pictures import (
    AttentionPicturesHook,
    CodePicturesHook,
    PredictionPicturesHook,
    SegmentationPicturesHook,
)
from beitv2_mm.engine.hooks.progress import ProgressHook
from beitv2_mm.engine.hooks.run_page import RunPageHook
from beitv2_mm.engine.hooks.seed import EpochSeedHook
from beitv2_mm.engine.hooks.unreadable import UnreadableImagesHook
from beitv2_mm.engine.layer_decay import LayerDecayOptimWrapperConstructor
from beitv2_mm.engine.loops import (
    ResumableEpochBasedTrainLoop,
    ResumableIterBasedTrainLoop,
    ResumableLoader,
)
from beitv2_mm.engine.metrics.codes import MIMMetric, TokenizerMetric, codebook_statistics
from beitv2_mm.engine.metrics.knn import KNNHook, KNNMetric, knn_scores
from beitv2_mm.engine.metrics.subset_accuracy import SubsetAccuracy
from beitv2_mm.engine.precision import mixed_precision
from beitv2_mm.engine.schedule import WarmupCosineLR, WarmupLinearLR
from beitv2_mm.engine.strategies import BlockShardedStrategy, StrategyRunner

__all__ = [
    'AdaptCheckpointHook',
    'AtomicCheckpointHook',
    'AttentionPicturesHook',
    'BlockShardedStrategy',
    'CodePicturesHook',
    'CodebookHook',
    'CompileHook',
    'DetectionPicturesHook',
    'DivergenceGuardHook',
    'EpochSeedHook',
    'GeneratedPicturesHook',
    'KNNHook',
    'KNNMetric',
    'LayerDecayOptimWrapperConstructor',
    'MIMMetric',
    'PredictionPicturesHook',
    'ProgressHook',
    'ResumableEpochBasedTrainLoop',
    'ResumableIterBasedTrainLoop',
    'ResumableLoader',
    'RunPageHook',
    'SegmentationPicturesHook',
    'StrategyRunner',
    'SubsetAccuracy',
    'TokenizerMetric',
    'UnreadableImagesHook',
    'WarmupCosineLR',
    'WarmupLinearLR',
    'codebook_statistics',
    'knn_scores',
    'mixed_precision',
]
