from beitv2_mm.engine.adapt_hook import AdaptCheckpointHook
from beitv2_mm.engine.codebook_hook import CodebookHook
from beitv2_mm.engine.metrics import MIMMetric, TokenizerMetric, codebook_statistics
from beitv2_mm.engine.seed_hook import EpochSeedHook, UnreadableImagesHook

__all__ = [
    'AdaptCheckpointHook',
    'CodebookHook',
    'EpochSeedHook',
    'MIMMetric',
    'TokenizerMetric',
    'UnreadableImagesHook',
    'codebook_statistics',
]
