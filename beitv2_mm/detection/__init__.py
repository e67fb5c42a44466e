"""Object detection and instance segmentation on mmdetection, which only this folder imports.

The registries import this folder, so it can be imported without mmdet; its names then raise an
error that says what to install.
"""

from typing import NoReturn

__all__ = ['CocoFolder', 'MaskTTAModel']

try:
    from beitv2_mm.detection.dataset import CocoFolder
    from beitv2_mm.detection.multi_scale import MaskTTAModel
except (ImportError, AssertionError) as error:  # mmdet asserts the version of mmcv
    _reason = error

    def __getattr__(name: str) -> NoReturn:
        if name not in __all__:
            raise AttributeError(name)
        raise ImportError(
            f'{name} needs mmdetection, which cannot be imported ({_reason}): '
            'pip install "beitv2_mm[det]"'
        ) from _reason
