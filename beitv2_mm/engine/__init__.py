from beitv2_mm.engine.adapt_hook import AdaptCheckpointHook
from beitv2_mm.engine.checkpoint_hook import AtomicCheckpointHook
from beitv2_mm.engine.codebook_hook import CodebookHook
from beitv2_mm.engine.compile_hook import CompileHook
from beitv2_mm.engine.divergence_hook import DivergenceGuardHook
from beitv2_mm.engine.knn import KNNHook, KNNMetric, knn_scores
from beitv2_mm.engine.loops import (
    ResumableEpochBasedTrainLoop,
    ResumableIterBasedTrainLoop,
    ResumableLoader,
)
from beitv2_mm.engine.metrics import MIMMetric, TokenizerMetric, codebook_statistics
from beitv2_mm.engine.picture_hooks import (
    AttentionPicturesHook,
    CodePicturesHook,
    PredictionPicturesHook,
    SegmentationPicturesHook,
)
from beitv2_mm.engine.precision import mixed_precision
from beitv2_mm.engine.progress_hook import ProgressHook
from beitv2_mm.engine.run_page_hook import RunPageHook
from beitv2_mm.engine.seed_hook import EpochSeedHook
from beitv2_mm.engine.strategies import BlockShardedStrategy, StrategyRunner
from beitv2_mm.engine.subset_accuracy import SubsetAccuracy
from beitv2_mm.engine.unreadable_hook import UnreadableImagesHook

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
    'codebook_statistics',
    'knn_scores',
    'mixed_precision',
]
