"""Images -> label maps and overlays, by any segmentation model on this backbone.

SegmentationInferencer('beitv2_base_patch16_224_pt1k_ftade20k')('street.jpg')[0].labels
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.logging import print_log
from PIL import Image

from beitv2_mm.apis.inferencers import Image as ImageInput
from beitv2_mm.apis.pipeline import PipelineInferencer, infer_files, save_picture
from beitv2_mm.visualization.canvas import as_picture
from beitv2_mm.visualization.segmentation import draw_with_legend

WHOLE = 4  # see `SegmentationInferencer`


class Segmentation(NamedTuple):
    """An image and its predicted label map."""

    image: np.ndarray  # (H, W, 3) uint8, RGB
    labels: np.ndarray  # (H, W) uint8


class SegmentationInferencer(PipelineInferencer[Segmentation]):
    """Images -> label maps of their own size; see `PipelineInferencer`.

    In mode 'whole', an image of more than `WHOLE` times the pixels of a training crop is segmented
    by sliding windows of the crop's size, because the memory for attention grows with the square of
    the number of pixels.
    """

    scope, kind = 'mmseg', 'segmentation'
    _slides = False  # whether the log says so already

    def _suits(self) -> bool:
        return hasattr(self.model, 'decode_head')

    def _num_classes(self) -> int:
        return self.model.num_classes

    @torch.no_grad()
    def _infer(self, given: ImageInput) -> Segmentation:
        loaded = self._read(given)
        image = as_picture(loaded['img'])
        loaded.update(seg_fields=[], reduce_zero_label=False)
        data = self._transform(loaded)
        with self._windows(data['inputs'].shape[-2:]):
            result = self.model.test_step(pseudo_collate([data]))[0]
        labels = result.pred_sem_seg.data.squeeze(0).cpu().numpy().astype(np.uint8)
        return Segmentation(image, labels)

    @contextmanager
    def _windows(self, size: Sequence[int]) -> Iterator[None]:
        """Let the model slide a window over an image that is too large for its mode 'whole'."""
        before = self.model.test_cfg
        crop = _crop(self.model)
        if before.mode != 'whole' or crop is None or math.prod(size) <= WHOLE * math.prod(crop):
            yield
            return
        if not self._slides:
            self._slides = True
            print_log(
                f"mode='whole' is for images of up to {WHOLE} times the pixels of a training crop; "
                f'larger ones are segmented by sliding windows of {crop[0]} x {crop[1]}.',
                'current',
            )
        stride = tuple(max(side * 2 // 3, 1) for side in crop)
        slide = dict(mode='slide', crop_size=crop, stride=stride)
        self.model.test_cfg = ConfigDict({**before, **slide})
        try:
            yield
        finally:
            self.model.test_cfg = before

    def draw(self, result: Segmentation, opacity: float = 0.5) -> Image.Image:
        """The image under the colours of its classes, beside their names."""
        return draw_with_legend(*result, self.palette, self.classes, opacity)


def _crop(model: Any) -> tuple[int, int] | None:
    """Height and width of the crops that the model is trained with; None where it has neither a
    crop size nor an image size."""
    size = getattr(model.data_preprocessor, 'size', None)
    size = size or getattr(model.backbone, 'img_size', None)
    return size and ((size, size) if isinstance(size, int) else (size[0], size[1]))


def segment_images(
    files: Sequence[str],
    inferencer: SegmentationInferencer,
    out: str | PathLike,
    opacity: float = 0.5,
    progress: Callable[[int], None] = lambda count: None,
) -> dict[str, str]:
    """Write ``out/labels/NAME.png``, palette PNGs whose values are the labels, and
    ``out/overlays/NAME.png`` with a legend.

    Args:
        files: see `beitv2_mm.apis.find_images`.
        progress: called with the number of images finished since the last call.

    Returns:
        Files that are unreadable or too large for the memory, and the reasons.
    """
    unreadable: dict[str, str] = {}
    advice = 'try --windows-per-batch 1 or a smaller image'
    for _, name, result in infer_files(files, inferencer._infer, unreadable, progress, advice):
        labels = Image.fromarray(result.labels)
        labels.putpalette(inferencer.palette.tobytes())
        pictures = dict(labels=labels, overlays=inferencer.draw(result, opacity))
        for folder, picture in pictures.items():
            save_picture(picture, Path(out, folder, f'{name}.png'))
    return unreadable
