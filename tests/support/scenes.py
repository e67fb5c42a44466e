"""A small folder of scenes with a json in COCO's layout, made of the pictures in tests/data."""

from pathlib import Path

import numpy as np
from PIL import Image

from beitv2_mm.datasets.prepare.scenes import Annotations, compose_scene
from support.tiny import CIFAR

CLASSES = ('disc', 'bar', 'ring')


def items() -> list[np.ndarray]:
    """An item (28, 28) of each class, black around it."""
    y, x = np.mgrid[-14:14, -14:14] + 0.5
    radius = np.hypot(x, y)
    shapes = (radius < 12, (abs(x) < 5) & (abs(y) < 13), (radius > 6) & (radius < 13))
    return [np.where(shape, 220, 0).astype(np.uint8) for shape in shapes]


def write_scenes(root: Path, count: int = 8, parts: tuple[str, ...] = ('train', 'val')) -> Path:
    """Writes ``images/{part}`` and ``annotations/{part}.json`` below ``root``."""
    pictures, random = sorted(CIFAR.glob('*/*.png')), np.random.default_rng(0)
    for part in parts:
        folder, annotations = root / 'images' / part, Annotations(CLASSES)
        folder.mkdir(parents=True)
        for i in range(count):
            labels = random.integers(0, 3, 1 + i % 3)
            background = np.asarray(Image.open(pictures[i % len(pictures)]).convert('RGB'))
            scene = compose_scene(
                background, [items()[k] for k in labels], [int(k) + 1 for k in labels], random
            )
            Image.fromarray(scene.image).save(folder / f'{i}.png')
            annotations.add(f'{i}.png', scene)
        annotations.write(root / f'annotations/{part}.json')
    return root
