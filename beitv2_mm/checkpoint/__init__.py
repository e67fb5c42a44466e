"""Loads checkpoints of any known layout into modules, and converts them.

    report = load(module, 'beitv2_base_patch16_224_pt1k.pth')
    convert_file('vit.pth', 'vit.safetensors', to='timm')

All names are compared in one common form, the official flat one. So backbones, classifiers and
pretrainers read each other's files, and those of the official code, timm, mmpretrain and mmseg.
"""

from beitv2_mm.checkpoint.adapter import Report, adapt, load
from beitv2_mm.checkpoint.converter import FORMATS, Conversion, Row, convert, convert_file
from beitv2_mm.checkpoint.files import Source, dataset_meta, read, write
from beitv2_mm.checkpoint.names import (
    SHARED_TABLE,
    StateDict,
    kind_of,
    official_name,
    to_official,
)
from beitv2_mm.compat.safe_load import CheckpointError

__all__ = [
    'FORMATS',
    'SHARED_TABLE',
    'CheckpointError',
    'Conversion',
    'Report',
    'Row',
    'Source',
    'StateDict',
    'adapt',
    'convert',
    'convert_file',
    'dataset_meta',
    'kind_of',
    'load',
    'official_name',
    'read',
    'to_official',
    'write',
]
