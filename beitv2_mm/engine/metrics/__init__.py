from beitv2_mm.engine.metrics.codes import MIMMetric, TokenizerMetric, codebook_statistics
from beitv2_mm.engine.metrics.knn import KNNHook, KNNMetric, knn_scores
from beitv2_mm.engine.metrics.subset_accuracy import SubsetAccuracy

__all__ = [
    'KNNHook',
    'KNNMetric',
    'MIMMetric',
    'SubsetAccuracy',
    'TokenizerMetric',
    'codebook_statistics',
    'knn_scores',
]
