"""Composites: real Fashion-MNIST items on real CIFAR-10 pictures -> images and exact masks.

``out/{images,masks}/{train,val,test}/<index>.png``, or scenes of several items, see
`beitv2_mm.datasets.prepare.scenes`. These are not photographs of scenes: call
them composites wherever you report results on them.
"""

import json
from pathlib import Path
from typing import Literal

import numpy as np
from mmengine.logging import print_log
from PIL import Image

from beitv2_mm.checkpoint.atomic import write_atomic
from beitv2_mm.datasets.prepare import progress
from beitv2_mm.datasets.prepare.captions import caption_of, is_held_out, write_captions
from beitv2_mm.datasets.prepare.fashion_mnist import ITEM, Items, find_items, read_items
from beitv2_mm.datasets.prepare.scenes import MAX_ITEMS, VISIBLE, Annotations, compose_scene
from beitv2_mm.datasets.reading import read_image

CLASSES = (
    'background', 't-shirt', 'trouser', 'pullover', 'dress', 'coat',
    'sandal', 'shirt', 'sneaker', 'bag', 'ankle boot',
)  # fmt: skip
MARKER = 'composites.json'
OWN = (
    'images',
    'masks',
    'annotations',
    'captions',
    'classes.txt',
    '.fashion',
)  # left by an interrupted preparation
Kind = Literal['masks', 'scenes', 'captions']


def compose(
    picture: np.ndarray, item: np.ndarray, label: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Pastes an item at a random place and size (16 to 28 of 32 pixels).

    Args:
        picture: (H, W, 3) uint8.
        item: (28, 28) uint8, black around the item.
        label: from 1; 0 is background.

    Returns:
        The composite (H, W, 3) and its mask (H, W), both uint8: exactly the pixels of the item have
        its label.
    """
    height, width = picture.shape[:2]
    size = int(random.integers(height // 2, min(ITEM * height // 32, height, width) + 1))
    scaled = np.asarray(Image.fromarray(item).resize((size, size), Image.Resampling.BILINEAR))
    top, left = random.integers(0, height - size + 1), random.integers(0, width - size + 1)
    visible = scaled >= VISIBLE
    image, mask = picture.copy(), np.zeros((height, width), np.uint8)
    image[top : top + size, left : left + size][visible] = scaled[visible][:, None]
    mask[top : top + size, left : left + size][visible] = label
    return image, mask


def prepare(
    out: str | Path,
    cifar: str | Path,
    fashion: str | Path = 'auto',
    counts: tuple[int, int, int] = (4000, 500, 1000),
    seed: int = 0,
    kind: Kind = 'masks',
) -> None:
    """Writes the composites; a finished set with the same settings is left as it is.

    The three parts share no item and no picture; 'test' takes those of the test sets.

    Args:
        cifar: folder that tools/prepare_cifar10.py wrote.
        fashion: folder of Fashion-MNIST's idx files, 'download' (torchvision's), or 'auto': where
            the Debian package dataset-fashion-mnist puts them, else torchvision's download, else
            that package, fetched and unpacked here.
        counts: of train, val and test.
        kind: 'masks'; 'scenes', several items a picture with boxes and masks in COCO's layout; or
            'captions', see `beitv2_mm.datasets.prepare.captions`.

    Raises:
        FileNotFoundError, ValueError: a source is missing or damaged, or has too few images.
    """
    out = Path(out).expanduser()
    if min(counts) < 0 or seed < 0:
        raise ValueError(f'counts are {counts} and seed is {seed}; expected numbers from 0.')
    other = {} if kind == 'masks' else {kind: True}
    record = json.dumps(dict(counts=list(counts), seed=seed) | other).encode()
    marker = out / MARKER
    if marker.is_file() and marker.read_bytes() == record:
        print_log(f'{out} is complete: nothing to do', logger='current')
        return
    if out.is_dir() and any(out.iterdir()) and not marker.is_file():
        others = [path.name for path in out.iterdir() if path.name not in OWN]
        if others:
            raise ValueError(f'{out} holds other things ({others[0]}): choose another --out.')
    marker.unlink(missing_ok=True)
    fashion = find_items(str(fashion), out / '.fashion')
    random = np.random.default_rng(seed)
    num_train, num_val, num_test = counts
    for source, parts in (
        ('train', {'train': num_train, 'val': num_val}),
        ('test', {'test': num_test}),
    ):
        items = read_items(fashion, source)
        write = dict(masks=_write_parts, scenes=_write_scenes, captions=_write_captions)
        write[kind](out, Path(cifar, source), items, parts, random)
    (out / 'classes.txt').write_text('\n'.join(CLASSES) + '\n')
    write_atomic(marker, record)
    print_log(f'{sum(counts)} composites in {out}', logger='current')


def _write_parts(
    out: Path, folder: Path, items: Items, parts: dict[str, int], random: np.random.Generator
) -> None:
    """Composes the parts of one source; no two of them share a picture or an item."""
    pictures, chosen_items = _shuffled(folder, items, sum(parts.values()), 1, random)
    chosen = zip(pictures, chosen_items, strict=False)
    for split, count in parts.items():
        for kind in ('images', 'masks'):
            _empty(out / kind / split)
        for index in progress(range(count), f'{split}: compose '):
            picture, item = next(chosen)
            background, label = read_image(picture), int(items.labels[item]) + 1
            image, mask = compose(background, items.images[item], label, random)
            Image.fromarray(image).save(out / f'images/{split}/{index:05d}.png')
            Image.fromarray(mask).save(out / f'masks/{split}/{index:05d}.png')


def _shuffled(
    folder: Path, items: Items, count: int, items_each: int, random: np.random.Generator
) -> tuple[list[Path], np.ndarray]:
    """Paths of pictures and numbers of items, both in random order, enough for ``count``."""
    pictures = sorted(folder.glob('*/*.png'))
    if len(pictures) < count or len(items.labels) < count * items_each:
        raise ValueError(
            f'{count} composites were asked for, with {items_each} items each; there are '
            f'{len(pictures)} pictures in {folder} and {len(items.labels)} items.'
        )
    order = random.permutation(len(pictures))
    return [pictures[i] for i in order], random.permutation(len(items.labels))


def _write_scenes(
    out: Path, folder: Path, items: Items, parts: dict[str, int], random: np.random.Generator
) -> None:
    """Composes scenes of one to `MAX_ITEMS` items; no two share a picture or an item."""
    pictures, order = _shuffled(folder, items, sum(parts.values()), MAX_ITEMS, random)
    chosen = zip(
        pictures, order[: len(order) // MAX_ITEMS * MAX_ITEMS].reshape(-1, MAX_ITEMS), strict=False
    )
    for split, count in parts.items():
        _empty(out / 'images' / split)
        annotations = Annotations(CLASSES[1:])
        for index in progress(range(count), f'{split}: compose '):
            picture, numbers = next(chosen)
            numbers = numbers[: random.integers(1, MAX_ITEMS + 1)]
            labels = [int(label) + 1 for label in items.labels[numbers]]
            scene = compose_scene(read_image(picture), list(items.images[numbers]), labels, random)
            name = f'{index:05d}.png'
            Image.fromarray(scene.image).save(out / 'images' / split / name)
            annotations.add(name, scene)
        annotations.write(out / f'annotations/{split}.json')


def _write_captions(
    out: Path, folder: Path, items: Items, parts: dict[str, int], random: np.random.Generator
) -> None:
    """Composes one item on a picture and writes what it shows; combinations that are held out are
    not in 'train'."""
    pictures, chosen = _shuffled(folder, items, sum(parts.values()), 1, random)
    pairs = list(zip(pictures, chosen, strict=False))
    for split, count in parts.items():
        _empty(out / 'images' / split)
        rows = []
        for index in progress(range(count), f'{split}: compose '):
            while True:
                if not pairs:
                    raise ValueError(f'There are not enough pictures and items for {split}.')
                picture, item = pairs.pop()
                kinds = CLASSES[items.labels[item] + 1], picture.parent.name
                held_out = is_held_out(int(items.labels[item]), kinds[1])
                if not (held_out and split == 'train'):
                    break
            image, _ = compose(read_image(picture), items.images[item], 1, random)
            name = f'{index:05d}.png'
            Image.fromarray(image).save(out / 'images' / split / name)
            rows.append((name, caption_of(*kinds), 'held_out' if held_out else 'seen'))
        write_captions(out / f'captions/{split}.csv', rows)


def _empty(folder: Path) -> None:
    """Removes the images of an earlier set, which may be larger than the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob('[0-9]*.png'):
        path.unlink()
