from beitv2_mm.visualization.accuracy import Accuracy, accuracy
from beitv2_mm.visualization.codes import code_atlas, code_map
from beitv2_mm.visualization.curves import Panel, Scalars, last_values, plot_curves, read_scalars
from beitv2_mm.visualization.outcomes import (
    ClassifierReport,
    ComparisonReport,
    DetectorReport,
    PretrainingReport,
    SegmentorReport,
)
from beitv2_mm.visualization.prediction import masked_images
from beitv2_mm.visualization.report import (
    Picture,
    Report,
    SegmentationScore,
    StageRecord,
    log_table,
)
from beitv2_mm.visualization.report_page import write_report

__all__ = [
    'Accuracy',
    'ClassifierReport',
    'ComparisonReport',
    'DetectorReport',
    'Panel',
    'Picture',
    'PretrainingReport',
    'Report',
    'Scalars',
    'SegmentationScore',
    'SegmentorReport',
    'StageRecord',
    'accuracy',
    'code_atlas',
    'code_map',
    'last_values',
    'log_table',
    'masked_images',
    'plot_curves',
    'read_scalars',
    'write_report',
]
