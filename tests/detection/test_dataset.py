"""A folder of images with a json, as a data set of mmdet: what is taken, dropped and refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs
from PIL import Image

from beitv2_mm.datasets import LoadImageFromFile
from beitv2_mm.datasets.coco_layout import CocoError
from beitv2_mm.detection import CocoFolder
from support.scenes import CLASSES, write_scenes

pytestmark = pytest.mark.cpu_only(reason='files are read, nothing is computed')

PIPELINE = [
    dict(type=LoadImageFromFile),
    dict(type=LoadAnnotations, with_bbox=True, with_mask=True),
    dict(type=PackDetInputs),
]
Edit = Callable[[dict[str, Any]], None]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_scenes(tmp_path, count=4, parts=('train',))


def dataset(root: Path, edit: Edit | None = None, **settings: Any) -> CocoFolder:
    file = root / 'annotations/train.json'
    if edit is not None:
        content = json.loads(file.read_text())
        edit(content)
        file.write_text(json.dumps(content))
    return CocoFolder(
        data_root=str(root),
        ann_file='annotations/train.json',
        data_prefix=dict(img='images/train/'),
        pipeline=PIPELINE,
        **settings,
    )


def test_classes_boxes_and_masks(root: Path) -> None:
    data = dataset(root)
    assert data.metainfo['classes'] == CLASSES and len(data) == 4
    content = json.loads((root / 'annotations/train.json').read_text())
    boxes = [a for a in content['annotations'] if a['image_id'] == 2]
    found = data[1]['data_samples'].gt_instances
    assert [b['category_id'] - 1 for b in boxes] == found.labels.tolist()
    x, y, width, height = boxes[0]['bbox']
    assert found.bboxes.tensor[0].tolist() == [x, y, x + width, y + height]
    assert found.masks.masks[0].sum() == boxes[0]['area']


def test_category_ids_with_gaps_in_any_order_and_a_choice_of_classes(root: Path) -> None:
    def edit(content: dict[str, Any]) -> None:
        for entry in content['categories']:
            entry['id'] = {1: 90, 2: 3, 3: 17}[entry['id']]
        for entry in content['annotations']:
            entry['category_id'] = {1: 90, 2: 3, 3: 17}[entry['category_id']]
        content['categories'].reverse()

    data = dataset(root, edit)
    assert data.metainfo['classes'] == ('bar', 'ring', 'disc') and data.cat_ids == [3, 17, 90]
    some = dataset(root, classes=['disc', 'bar'])
    assert some.metainfo['classes'] == ('bar', 'disc') and some.cat_ids == [3, 90]
    for i in range(4):
        labels = [b['bbox_label'] for b in data.get_data_info(i)['instances']]
        expected = [{0: 0, 2: 1}[label] for label in labels if label != 1]
        assert [b['bbox_label'] for b in some.get_data_info(i)['instances']] == expected
    with pytest.raises(ValueError, match=r"has no class 'cat'; it has \['bar', 'ring', 'disc'\]"):
        dataset(root, classes=['cat'])


def test_boxes_without_area_are_dropped_and_named(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(
        'beitv2_mm.detection.dataset.print_log', lambda message, **kwargs: said.append(message)
    )
    before = len(dataset(root).get_data_info(0)['instances'])

    def edit(content: dict[str, Any]) -> None:
        content['annotations'][0]['bbox'][2] = 0

    data = dataset(root, edit)
    assert len(data.get_data_info(0)['instances']) == before - 1
    assert '1 of' in said[0] and 'have no area, e.g. that with the id 1: left out' in said[0]


def test_crowds_empty_images_polygons_and_no_area(root: Path) -> None:
    def edit(content: dict[str, Any]) -> None:
        first = content['annotations'][0]
        x, y, width, height = first['bbox']
        first['segmentation'] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
        first['iscrowd'] = 1
        del first['area']
        content['annotations'] = [a for a in content['annotations'] if a['image_id'] != 3]

    data = dataset(root, edit, filter_cfg=dict(filter_empty_gt=False))
    crowd = data[0]['data_samples'].ignored_instances
    assert len(crowd) == 1 and crowd.masks.masks[0].any()
    assert len(data[2]['data_samples'].gt_instances) == 0
    assert len(dataset(root, filter_cfg=dict(filter_empty_gt=True))) == 3


def test_an_image_of_another_size_than_its_entry_is_named(root: Path) -> None:
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(root / 'images/train/0.png')
    with pytest.raises(RuntimeError, match=r'0\.png.*20 x 30 .*are for 64 x 64.*Repair'):
        dataset(root, test_mode=True)[0]
    data = dataset(root)
    assert data[0]['data_samples'].img_id != 1  # in training, another image takes its place
    assert data.num_unreadable == 1


def test_missing_images_stop_at_once(root: Path) -> None:
    (root / 'images/train/1.png').unlink()
    with pytest.raises(CocoError, match=r'names 1 of 4 images that are not there.*1\.png'):
        dataset(root)
