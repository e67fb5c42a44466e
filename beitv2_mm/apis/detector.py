"""Images -> boxes, and masks where the model has them, by any detector of mmdet on this backbone.

DetectionInferencer('detector.py', 'detector.pth')('street.jpg')[0].boxes
"""

import json
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from PIL import Image

from beitv2_mm.apis.files import write_table
from beitv2_mm.apis.inferencers import Image as ImageInput
from beitv2_mm.apis.pipeline import PipelineInferencer, infer_files, save_picture
from beitv2_mm.checkpoint.atomic import write_atomic
from beitv2_mm.visualization.canvas import as_picture
from beitv2_mm.visualization.instances import Instances, draw_instances

THRESHOLD = 0.3  # score below which an object is left out
HEAD = ('file', 'class', 'score', 'left', 'top', 'right', 'bottom')


class Detection(NamedTuple):
    """An image and the objects found in it, the most certain first."""

    image: np.ndarray  # (H, W, 3) uint8, RGB
    boxes: np.ndarray  # (n, 4) float: left, top, right, bottom in pixels
    labels: np.ndarray  # (n,) int
    scores: np.ndarray  # (n,) float
    masks: np.ndarray | None  # (n, H, W) bool; None for a model without masks


class DetectionInferencer(PipelineInferencer[Detection]):
    """Images -> objects with a score of at least `threshold`; see `PipelineInferencer`."""

    scope, kind = 'mmdet', 'detection'
    threshold = THRESHOLD

    def _suits(self) -> bool:
        heads = ('bbox_head', 'roi_head', 'panoptic_head', 'mask_head')
        return any(hasattr(self.model, head) for head in heads)

    def _num_classes(self) -> int:
        """The largest number that a head states; that of region proposals is one."""
        numbers = (getattr(module, 'num_classes', 0) for module in self.model.modules())
        return max(number for number in numbers if isinstance(number, int))

    @torch.no_grad()
    def _infer(self, given: ImageInput) -> Detection:
        loaded = self._read(given)
        image = as_picture(loaded['img'])
        sample = self.model.test_step(pseudo_collate([self._transform(loaded)]))[0]
        return Detection(image, *Instances.of(sample.pred_instances, self.threshold))

    def draw(self, result: Detection) -> Image.Image:
        """The image under the masks, boxes, names and scores of its objects."""
        return draw_instances(result.image, Instances(*result[1:]), self.classes, self.palette)


def detect_images(
    files: Sequence[str],
    inferencer: DetectionInferencer,
    out: str | PathLike,
    progress: Callable[[int], None] = lambda count: None,
) -> dict[str, str]:
    """Writes ``out/detections.csv``, ``out/detections.json`` in COCO's layout, whose annotations
    have a 'score', and ``out/pictures/NAME.png``.

    Args:
        files: see `beitv2_mm.apis.find_images`.
        progress: called with the number of images finished since the last call.

    Returns:
        Files that are unreadable or too large for the memory, and the reasons.
    """
    out, unreadable = Path(out), dict[str, str]()
    out.mkdir(parents=True, exist_ok=True)
    names = [dict(id=k + 1, name=name) for k, name in enumerate(inferencer.classes)]
    coco: dict[str, list] = dict(images=[], annotations=[], categories=names)

    def rows() -> Iterator[list[str]]:
        for file, name, result in infer_files(files, inferencer._infer, unreadable, progress):
            for label, score, box in zip(result.labels, result.scores, result.boxes, strict=True):
                sides = (f'{side:.1f}' for side in box)
                yield [file, inferencer.classes[label], f'{score:.4f}', *sides]
            _add(coco, file, result)
            save_picture(inferencer.draw(result), out / 'pictures' / f'{name}.png')

    write_table(out / 'detections.csv', HEAD, rows())
    write_atomic(out / 'detections.json', json.dumps(coco).encode())
    return unreadable


def _add(coco: dict[str, list], file: str, result: Detection) -> None:
    """Adds an image and its objects to the content of a json in COCO's layout."""
    height, width = result.image.shape[:2]
    coco['images'].append(
        dict(id=len(coco['images']) + 1, file_name=file, height=height, width=width)
    )
    for i, (left, top, right, bottom) in enumerate(result.boxes.tolist()):
        box: dict[str, Any] = dict(
            id=len(coco['annotations']) + 1,
            image_id=len(coco['images']),
            category_id=int(result.labels[i]) + 1,
            bbox=[left, top, right - left, bottom - top],
            area=(right - left) * (bottom - top),
            iscrowd=0,
            score=float(result.scores[i]),
        )
        if result.masks is not None:
            box['segmentation'] = _run_lengths(result.masks[i])
            box['area'] = int(result.masks[i].sum())
        coco['annotations'].append(box)


def _run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """(H, W) bool -> COCO's compressed RLE."""
    from pycocotools import mask as coco_mask  # comes with mmdet

    coded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return dict(size=coded['size'], counts=coded['counts'].decode())
