"""Scenes of overlapping items: what is seen of each, its box and its code, and equal seeds."""

import json
from pathlib import Path

import numpy as np
import pytest

from beitv2_mm.datasets.prepare.scenes import LEAST, SIZE, Annotations, compose_scene, run_lengths
from support.scenes import CLASSES, items, write_scenes

pytestmark = pytest.mark.cpu_only(reason='arrays and files, nothing is computed')

BACKGROUND = (200, 100, 50)


def scene(seed: int, labels: tuple[int, ...] = (1, 2, 3, 1)):
    picture = np.full((32, 32, 3), BACKGROUND, np.uint8)  # no grey, as items are
    pasted = [items()[label - 1] for label in labels]
    return compose_scene(picture, pasted, list(labels), np.random.default_rng(seed))


def test_masks_are_disjoint_and_exactly_the_pixels_that_changed() -> None:
    hidden = 0
    for seed in range(40):
        found = scene(seed)
        assert len(found.labels) == len(found.masks) and found.labels[0] == 1
        total = np.sum(found.masks, axis=0)
        assert total.max() == 1
        assert np.array_equal(total == 1, (found.image != BACKGROUND).any(-1))
        hidden += sum(np.diff(np.flatnonzero(mask.any(0))).max() > 1 for mask in found.masks)
        assert all(mask.sum() > LEAST * 16 for mask in found.masks)
    assert hidden  # some lie in two parts, with another one before them


def test_equal_seeds_give_equal_scenes() -> None:
    assert np.array_equal(scene(5).image, scene(5).image)
    assert not np.array_equal(scene(5).image, scene(6).image)


@pytest.mark.parametrize(
    ('mask', 'lengths'),
    [
        ([[0, 0], [0, 1]], [3, 1]),
        ([[1, 0], [1, 1]], [0, 2, 1, 1]),
        ([[1, 1], [1, 1]], [0, 4]),
        ([[0, 0], [0, 0]], [4]),
    ],
)
def test_run_lengths_go_down_the_columns(mask: list, lengths: list[int]) -> None:
    assert run_lengths(np.array(mask, bool)) == lengths


def test_annotations_are_read_by_pycocotools(tmp_path: Path) -> None:
    coco = pytest.importorskip('pycocotools.coco').COCO
    found = scene(3)
    annotations = Annotations(CLASSES)
    annotations.add('a.png', found)
    annotations.write(tmp_path / 'a/b.json')
    read = coco(tmp_path / 'a/b.json')
    boxes = read.loadAnns(read.getAnnIds(imgIds=[1]))
    assert [read.cats[box['category_id']]['name'] for box in boxes] == [
        CLASSES[label - 1] for label in found.labels
    ]
    for box, mask in zip(boxes, found.masks, strict=True):
        assert np.array_equal(read.annToMask(box), mask)
        x, y, width, height = map(int, box['bbox'])
        assert mask[y : y + height, x : x + width].sum() == mask.sum() == box['area']
        assert mask[y].any() and mask[y + height - 1].any() and mask[:, x + width - 1].any()


def test_parts_of_a_folder(tmp_path: Path) -> None:
    root = write_scenes(tmp_path, count=3)
    for part in ('train', 'val'):
        content = json.loads((root / f'annotations/{part}.json').read_text())
        assert [image['file_name'] for image in content['images']] == ['0.png', '1.png', '2.png']
        assert {(i['height'], i['width']) for i in content['images']} == {(SIZE, SIZE)}
        assert len(list((root / 'images' / part).glob('*.png'))) == 3
