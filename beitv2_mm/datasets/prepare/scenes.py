"""Scenes: several real Fashion-MNIST items, overlapping, on a real CIFAR-10 picture, with boxes.

``out/images/{train,val,test}/<index>.png`` and ``out/annotations/{train,val,test}.json`` in COCO's
layout. A scene is no photograph: call them composites wherever you report results on them.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from beitv2_mm.checkpoint.atomic import write_atomic

SIZE = 64  # pixels of a side; the picture of 32 is enlarged
MAX_ITEMS = 4
SIDES = (16, 36)  # pixels of an item's side, the second excluded
VISIBLE = 16  # grey values from which a pixel belongs to the item: below is the scan's noise
LEAST = 0.3  # share of an item that has to stay visible


class Scene(NamedTuple):
    """A picture, and of every item its label and the pixels of it that are seen."""

    image: np.ndarray  # (SIZE, SIZE, 3) uint8
    labels: list[int]
    masks: list[np.ndarray]  # (SIZE, SIZE) bool


def compose_scene(
    picture: np.ndarray, items: list[np.ndarray], labels: list[int], random: np.random.Generator
) -> Scene:
    """Pastes items one after the other at random places and sizes.

    A place where an item before would lose too much of itself is drawn again, ten times; then the
    item is left out.

    Args:
        picture: (H, W, 3) uint8, enlarged to the scene.
        items: (28, 28) uint8 each, black around the item.
    """
    enlarged = Image.fromarray(picture).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    scene = Scene(np.array(enlarged), [], [])
    areas: list[int] = []
    for item, label in zip(items, labels, strict=True):
        for _ in range(10):
            pixels, mask = _place(item, random)
            left = [seen & ~mask for seen in scene.masks]
            if all(seen.sum() >= LEAST * area for seen, area in zip(left, areas, strict=True)):
                scene.image[mask] = pixels[mask][:, None]
                scene.masks[:] = [*left, mask]
                scene.labels.append(label)
                areas.append(int(mask.sum()))
                break
    return scene


def _place(item: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The item's grey values and its mask, (SIZE, SIZE) each, at a random place and size."""
    side = int(random.integers(*SIDES))
    scaled = Image.fromarray(item).resize((side, side), Image.Resampling.BILINEAR)
    top, left = random.integers(0, SIZE - side + 1, 2)
    pixels: np.ndarray = np.zeros((SIZE, SIZE), np.uint8)
    pixels[top : top + side, left : left + side] = scaled
    return pixels, pixels >= VISIBLE


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed code of a mask: lengths of runs down the columns, zeros first."""
    flat = mask.flatten(order='F')
    ends: np.ndarray = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *ends, flat.size]).tolist()
    return [0, *lengths] if flat[0] else lengths


class Annotations:
    """COCO's json of one part, which grows scene by scene."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.content: dict[str, list[dict]] = dict(
            images=[],
            annotations=[],
            categories=[dict(id=i, name=name) for i, name in enumerate(classes, 1)],
        )

    def add(self, name: str, scene: Scene) -> None:
        image = len(self.content['images']) + 1
        height, width = scene.image.shape[:2]
        self.content['images'].append(dict(id=image, file_name=name, height=height, width=width))
        found = self.content['annotations']
        for label, mask in zip(scene.labels, scene.masks, strict=True):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            left, right, top, bottom = map(int, (columns[0], columns[-1], rows[0], rows[-1]))
            box = [left, top, right - left + 1, bottom - top + 1]
            found.append(
                dict(
                    id=len(found) + 1,
                    image_id=image,
                    category_id=label,
                    bbox=[float(value) for value in box],
                    area=int(mask.sum()),
                    iscrowd=0,
                    segmentation=dict(size=[height, width], counts=run_lengths(mask)),
                )
            )

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(self.content).encode())
