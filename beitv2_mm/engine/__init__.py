"""From a config to a running training: hooks, metrics, loops, strategies."""

from beitv2_mm.engine.hooks import (
    AdaptCheckpointHook,
    AtomicCheckpointHook,
    AttentionPicturesHook,
    CodebookHook,
    CodePicturesHook,
    CompileHook,
    DivergenceGuardHook,
    EpochSeedHook,
    PredictionPicturesHook,
    ProgressHook,
    RunPageHook,
    SegmentationPicturesHook,
    UnreadableImagesHook,
)
from beitv2_mm.engine.loops import (
    ResumableEpochBasedTrainLoop,
    ResumableIterBasedTrainLoop,
    ResumableLoader,
)
from beitv2_mm.engine.metrics import (
    KNNHook,
    KNNMetric,
    MIMMetric,
    SubsetAccuracy,
    TokenizerMetric,
    codebook_statistics,
    knn_scores,
)
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
    'DivergenceGuardHook',
    'EpochSeedHook',
    'KNNHook',
    'KNNMetric',
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
