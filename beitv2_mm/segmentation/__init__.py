"""Semantic segmentation on mmsegmentation, which only this folder imports.

The registries import this folder, so it can be imported without mmseg; its names then raise an
error that says what to install.
"""

from typing import NoReturn

__all__ = [
    'ADE20K',
    'BEiTV2FCNHead',
    'BEiTV2Segmentor',
    'BEiTV2UPerHead',
    'ImageMaskFolder',
    'LoadMask',
    'SegLocalVisualizer',
    'pyramid_levels',
]

try:
    # A runner builds it first, and mmseg beside mmcv-lite needs the fixes of this package before.
    from mmseg.visualization import SegLocalVisualizer

    from beitv2_mm.segmentation.dataset import ADE20K, ImageMaskFolder
    from beitv2_mm.segmentation.load_mask import LoadMask
    from beitv2_mm.segmentation.segmentor import BEiTV2Segmentor
    from beitv2_mm.segmentation.upernet_head import BEiTV2FCNHead, BEiTV2UPerHead, pyramid_levels
except (ImportError, AssertionError) as error:  # mmseg asserts the version of mmcv
    _reason = error

    def __getattr__(name: str) -> NoReturn:
        if name not in __all__:
            raise AttributeError(name)
        raise ImportError(
            f'{name} needs mmsegmentation, which cannot be imported ({_reason}): '
            'pip install "beitv2_mm[seg]"'
        ) from _reason
