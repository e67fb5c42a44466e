"""From a folder of images to a report: survey, choices, configs, trainings.

The quickstart is one such job, whose images are CIFAR-10. The functions are imported when they are
asked for, because command lines answer ``--help`` from this package without PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from beitv2_mm.jobs.detecting import detect_train
    from beitv2_mm.jobs.finetuning import finetune
    from beitv2_mm.jobs.options import (
        DetectOptions,
        FinetuneOptions,
        PretrainOptions,
        SegmentOptions,
    )
    from beitv2_mm.jobs.predicting import predict
    from beitv2_mm.jobs.pretraining import pretrain
    from beitv2_mm.jobs.segmenting import segment_train

_PLACES = {
    'DetectOptions': 'options',
    'FinetuneOptions': 'options',
    'PretrainOptions': 'options',
    'SegmentOptions': 'options',
    'detect_train': 'detecting',
    'finetune': 'finetuning',
    'predict': 'predicting',
    'pretrain': 'pretraining',
    'segment_train': 'segmenting',
}
__all__ = [
    'DetectOptions',
    'FinetuneOptions',
    'PretrainOptions',
    'SegmentOptions',
    'detect_train',
    'finetune',
    'predict',
    'pretrain',
    'segment_train',
]


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(f'beitv2_mm.jobs.{_PLACES[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
