"""Masks from files, checked: path -> one label a pixel, (H, W) uint8."""

from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform

from beitv2_mm.datasets.reading import read_labels
from beitv2_mm.registry import TRANSFORMS

IGNORE = 255  # mmseg's label of ignored pixels


def check_labels(
    mask: np.ndarray, path: str, classes: Sequence[str], reduce_zero_label: bool
) -> None:
    """Raises a ValueError that names the file if a label has no class; 255 is ignored."""
    first = 1 if reduce_zero_label else 0
    last = first + len(classes) - 1
    labels = np.unique(mask[mask != IGNORE])
    if not len(labels) or (labels[0] >= 0 and labels[-1] <= last):
        return
    wrong = int(labels[-1] if labels[-1] > last else labels[0])
    hint = ''
    if wrong == last + 1 and not reduce_zero_label:
        hint = ' If 0 is unlabelled background, set reduce_zero_label=True.'
    raise ValueError(
        f'Label {wrong} in the mask {path} is out of range: the {len(classes)} classes '
        f'({classes[0]} ... {classes[-1]}) have labels {first} to {last}, and {IGNORE} is ignored. '
        f'Is the class list too short? It needs {wrong - first + 1} names for this mask.{hint}'
    )


@TRANSFORMS.register_module()
class LoadMask(BaseTransform):
    """mmseg's LoadAnnotations with checks, before or after the image is resized.

    It reads 'seg_map_path', 'reduce_zero_label' and, if the data set gives them, 'classes' and
    'label_map'; it writes 'gt_seg_map' (H, W) uint8.

    Raises:
        ValueError: the mask, which is named, is unreadable, has another size than its image, or has
            a label without class.
    """

    def transform(self, results: dict) -> dict:
        path, reduce_zero_label = results['seg_map_path'], results['reduce_zero_label']
        mask = read_labels(path)
        size = tuple(results.get('ori_shape', mask.shape))
        if size != mask.shape:
            raise ValueError(
                f'The mask {path} is {mask.shape[0]} x {mask.shape[1]}, but its image '
                f'{results.get("img_path")} is {size[0]} x {size[1]} (height x width).'
            )
        if results.get('classes'):
            check_labels(mask, path, results['classes'], reduce_zero_label)
        if reduce_zero_label:
            mask = np.where((mask == 0) | (mask == IGNORE), IGNORE, mask - 1)
        mapped: np.ndarray = mask.astype(np.uint8)
        for old, new in (results.get('label_map') or {}).items():
            mapped[mask == old] = new
        results['gt_seg_map'] = mapped
        results['seg_fields'].append('gt_seg_map')
        return results
