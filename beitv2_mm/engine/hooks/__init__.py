from beitv2_mm.engine.hooks.adapt import AdaptCheckpointHook
from beitv2_mm.engine.hooks.checkpoint import AtomicCheckpointHook
from beitv2_mm.engine.hooks.codebook import CodebookHook
from beitv2_mm.engine.hooks.compile import CompileHook
from beitv2_mm.engine.hooks.divergence import DivergenceGuardHook
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

__all__ = [
    'AdaptCheckpointHook',
    'AtomicCheckpointHook',
    'AttentionPicturesHook',
    'CodePicturesHook',
    'CodebookHook',
    'CompileHook',
    'DivergenceGuardHook',
    'EpochSeedHook',
    'PredictionPicturesHook',
    'ProgressHook',
    'RunPageHook',
    'SegmentationPicturesHook',
    'UnreadableImagesHook',
]
