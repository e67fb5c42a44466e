"""Jsons in COCO's layout: what is counted, and what no training should start with."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from beitv2_mm.datasets.coco_layout import CocoError, check_coco, read_coco


def content() -> dict[str, Any]:
    """Three images, one of them empty; categories with a gap; polygon, RLE, crowd and no mask."""
    box = dict(image_id=1, category_id=7, iscrowd=0)
    return dict(
        images=[dict(id=i, file_name=f'{i}.png', height=20, width=30) for i in (1, 2, 5)],
        categories=[dict(id=7, name='dog'), dict(id=2, name='cat')],
        annotations=[
            box | dict(id=1, bbox=[1, 2, 10, 5], segmentation=[[1, 2, 11, 2, 11, 7]]),
            box | dict(id=2, bbox=[0, 0, 2, 2], segmentation=dict(size=[20, 30], counts=[0, 600])),
            box | dict(id=3, bbox=[3, 3, 4, 4], image_id=2, category_id=2, iscrowd=1),
        ],
    )


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in (1, 2, 5):
        (tmp_path / f'{name}.png').touch()
    return tmp_path


def test_counts(images: Path) -> None:
    found = check_coco(content(), 'a.json', images)
    assert (found.images, found.boxes, found.crowds, found.empty_images) == (3, 3, 1, 1)
    assert list(found.classes.items()) == [('cat', 1), ('dog', 2)]
    assert found.masks == dict(polygons=1, RLE=1, none=1)
    assert found.without_area == found.outside == []


@pytest.mark.parametrize(
    ('box', 'without_area', 'outside'),
    [
        ([4, 4, 0, 5], [1], []),
        ([4, 4, 5, 0], [1], []),
        ([40, 4, 5, 5], [1], []),
        ([4, -9, 5, 5], [1], []),
        ([25, 4, 20, 5], [], [1]),
        ([-5, 4, 10, 5], [], [1]),
        ([0, 0, 30.5, 20], [], []),
    ],
)
def test_boxes_without_area_and_outside(
    images: Path, box: list, without_area: list, outside: list
) -> None:
    changed = content()
    changed['annotations'][0]['bbox'] = box
    found = check_coco(changed, 'a.json', images)
    assert (found.without_area, found.outside) == (without_area, outside)


WRONG = {
    'the image 9, which is not listed': ('annotations', 0, dict(image_id=9)),
    'category 3; there are \\[2, 7\\]': ('annotations', 0, dict(category_id=3)),
    'coded for \\[30, 20\\], but its image 1.png has \\[20, 30\\]': (
        'annotations', 1, dict(segmentation=dict(size=[30, 20], counts=[600])),
    ),
    'fewer than three points': ('annotations', 0, dict(segmentation=[[1, 2, 3, 4]])),
    'two categories have the name': ('categories', 0, dict(name='cat')),
    '1 of 3 images that are not there, e.g. .*gone.png': ('images', 2, dict(file_name='gone.png')),
}  # fmt: skip


@pytest.mark.parametrize('message', WRONG)
def test_parts_that_do_not_belong_together(images: Path, message: str) -> None:
    part, index, change = WRONG[message]
    wrong = content()
    wrong[part][index] |= change
    with pytest.raises(CocoError, match=f'a.json.*{message}'):
        check_coco(wrong, 'a.json', images)


def test_files_that_are_not_in_the_layout(tmp_path: Path) -> None:
    file = tmp_path / 'a.json'
    with pytest.raises(FileNotFoundError, match=r'a\.json.*check ann_file'):
        read_coco(file)
    for text, message in (
        ('{', 'is no json'),
        ('[]', 'holds a list'),
        ('{"images": []}', 'no list "annotations"'),
    ):
        file.write_text(text)
        with pytest.raises(CocoError, match=message):
            read_coco(file)
    for part, key in (('images', 'height'), ('annotations', 'bbox'), ('categories', 'name')):
        wrong = copy.deepcopy(content())
        del wrong[part][1][key]
        file.write_text(json.dumps(wrong))
        with pytest.raises(CocoError, match=rf'{part}\[1\] has no "{key}"'):
            read_coco(file)
    wrong = content()
    wrong['images'][1]['id'] = 1
    file.write_text(json.dumps(wrong))
    with pytest.raises(CocoError, match='the id 1 stands twice among the images'):
        read_coco(file)
