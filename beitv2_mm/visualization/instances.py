"""Detected objects on their image: (H, W, 3), boxes and masks -> picture."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.font_manager import findfont
from PIL import Image
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

SHORTEST = 320  # pixels of a picture's short side: smaller images are enlarged, for the texts


class Instances(NamedTuple):
    """The objects in an image, in its pixels."""

    boxes: np.ndarray  # (n, 4) float: left, top, right, bottom
    labels: np.ndarray  # (n,) int
    scores: np.ndarray  # (n,) float, 1 for annotated objects
    masks: np.ndarray | None  # (n, H, W) bool

    @classmethod
    def of(cls, found: Any, threshold: float = 0.0) -> 'Instances':
        """Those of an mmengine InstanceData, annotated or predicted, with a score of at least
        ``threshold``, the most certain first."""
        boxes = getattr(found.bboxes, 'tensor', found.bboxes).float().cpu().numpy()
        labels = found.labels.cpu().numpy()
        scores = found.scores.float().cpu().numpy() if 'scores' in found else np.ones(len(labels))
        masks = found.get('masks')
        if isinstance(masks, torch.Tensor):
            masks = masks.cpu().numpy()
        elif masks is not None:  # mmdet's masks of annotations
            masks = masks.to_ndarray()
        order = np.argsort(-scores, kind='stable')
        order = order[scores[order] >= threshold]
        kept = None if masks is None else masks[order].astype(bool)
        return cls(boxes[order], labels[order], scores[order], kept)


def draw_instances(
    image: np.ndarray, found: Instances, classes: Sequence[str], palette: np.ndarray
) -> Image.Image:
    """The image under the masks, boxes, class names and scores of its objects.

    Args:
        image: (H, W, 3) uint8.
        palette: (K, 3) uint8, the colours of the ``classes``.
    """
    factor = -(-SHORTEST // min(image.shape[:2]))
    large = Image.fromarray(image).resize((factor * image.shape[1], factor * image.shape[0]))
    picture = torch.from_numpy(np.array(large)).permute(2, 0, 1)  # (3, H, W)
    colours = [tuple(colour) for colour in palette[found.labels].tolist()]
    if not colours:
        return large
    if found.masks is not None:
        masks = found.masks.repeat(factor, axis=1).repeat(factor, axis=2)
        picture = draw_segmentation_masks(picture, torch.from_numpy(masks), 0.45, colours)
    texts = [
        classes[label] + (f' {score:.0%}' if score < 1 else '')
        for label, score in zip(found.labels, found.scores, strict=True)
    ]
    boxes = torch.from_numpy(found.boxes * factor)
    picture = draw_bounding_boxes(
        picture,
        boxes,
        texts,
        colours,
        width=max(2, min(large.size) // 300),
        font=findfont('DejaVu Sans'),
        font_size=max(11, min(large.size) // 45),
        label_colors='white',
        fill_labels=True,
    )
    return Image.fromarray(picture.permute(1, 2, 0).numpy())
