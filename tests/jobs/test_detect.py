"""`detect-train` and `predict` as a user runs them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from mmengine.config import Config
from PIL import Image

from beitv2_mm.datasets.coco_layout import CocoError, check_coco, read_coco
from beitv2_mm.jobs import predict
from beitv2_mm.jobs.box_survey import survey_boxes
from beitv2_mm.jobs.choices import Machine, Size, schedule
from beitv2_mm.jobs.detecting import crop_size, detect
from beitv2_mm.jobs.survey import FolderError
from beitv2_mm.jobs.weights import Weights
from support.scenes import CLASSES, write_scenes

pytest.importorskip('mmdet')
pytestmark = pytest.mark.not_pretended(reason='it runs in processes of its own')


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Twenty images in images/ and one json."""
    folder = write_scenes(tmp_path / 'my scenes', 20, ('all',))
    for path in (folder / 'images/all').iterdir():
        path.rename(folder / 'images' / path.name)
    (folder / 'images/all').rmdir()
    (folder / 'annotations/all.json').rename(folder / 'boxes.json')
    (folder / 'annotations').rmdir()
    return folder


def change(path: Path, edit: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_boxes_to_a_detector_to_predictions(
    pretrained: Path, command: Callable[..., str], scenes: Path, tmp_path: Path
) -> None:
    start = ['detect-train', scenes, '--from', pretrained, '--out', 'detector', '--epochs', 2]
    said = command(*start, cwd=tmp_path)
    assert 'AP of boxes' in said and 'AP of masks' in said and '3 classes (disc, bar, ring)' in said
    report = json.loads((tmp_path / 'detector/report.json').read_text())
    assert report['num_images'] == 2 and report['num_classes'] == 3
    assert Image.open(tmp_path / 'detector/pictures/detection.png').width > 600
    cfg = Config.fromfile(tmp_path / 'detector/detect.py')
    assert cfg.num_classes == 3 and cfg.model.backbone.window_size == 8
    assert 'done already' in command(*start, cwd=tmp_path)
    (scenes / 'images/broken.png').write_bytes(b'no picture')
    images = scenes / 'images'
    line = ['predict', images, '--from', 'detector', '--out', 'found', '--threshold', '0']
    assert '20 images, 1 unreadable' in command(*line, cwd=tmp_path)
    content = read_coco(tmp_path / 'found/detections.json')
    assert check_coco(content, 'found', '').images == 20
    assert len(list((tmp_path / 'found/pictures').rglob('*.png'))) == 20
    with pytest.raises(FolderError, match='--threshold is for'):
        predict([images], str(pretrained), tmp_path / 'x', features=True, threshold=0.5)


def test_one_json_is_split_and_two_are_kept(scenes: Path, tmp_path: Path) -> None:
    found = survey_boxes(scenes)
    names = [{image['file_name'] for image in part['images']} for part in (found.train, found.val)]
    assert [len(part) for part in names] == [18, 2] and not names[0] & names[1]
    assert found.classes == CLASSES and found.masks and found.short_side == 64
    assert all((scenes / name).is_file() for part in names for name in part)
    two = write_scenes(tmp_path / 'two', 3)
    for part in ('train', 'val'):  # as COCO names them
        (two / f'annotations/{part}.json').rename(two / f'annotations/instances_{part}2017.json')
        (two / f'images/{part}').rename(two / f'{part}2017')
        (two / f'annotations/captions_{part}2017.json').write_text('{}')
    found = survey_boxes(two)
    assert len(found.train['images']) == len(found.val['images']) == 3
    assert found.train['images'][0]['file_name'] == 'train2017/0.png'


def test_what_cannot_be_validated_on_is_left_out(scenes: Path) -> None:
    first, second = (scenes / image['file_name'] for image in survey_boxes(scenes).val['images'])
    Image.open(first).resize((32, 64)).save(first)
    (image,) = survey_boxes(scenes).val['images']
    assert scenes / image['file_name'] == second
    second.write_bytes(b'no picture')
    with pytest.raises(FolderError, match='Not one of the images .* can be read'):
        survey_boxes(scenes)


def test_boxes_without_masks(scenes: Path, tmp_path: Path) -> None:
    """One object without a mask, and only boxes are learnt."""
    change(scenes / 'boxes.json', lambda content: content['annotations'][0].pop('segmentation'))
    found = survey_boxes(scenes)
    assert not found.masks and 'without masks' in found.describe()
    weights = Weights('weights.pth', 'tiny', 32, 4, 'shared', True)
    plan = schedule('detect', 18, 'tiny', Size(64, 4), Machine(0, 2))
    cfg = detect(found, weights, plan, tmp_path)
    assert cfg.model.roi_head.keys() == {'type', 'bbox_roi_extractor', 'bbox_head'}
    assert cfg.val_evaluator.metric == ['bbox']


@pytest.mark.parametrize('gpu', [0, 80 * 2**30])
def test_sizes_follow_images_weights_and_machine(scenes: Path, gpu: int, tmp_path: Path) -> None:
    found, machine = survey_boxes(scenes), Machine(gpu, 8)
    large = Weights('weights.pth', 'large', 224, 16, 'shared', True)
    size = crop_size(found, large, machine, None)
    assert size == Size(224, 16)  # no smaller than what the weights know
    object.__setattr__(found, 'short_side', 480)
    assert crop_size(found, large, machine, None) == (Size(480, 16) if gpu else Size(224, 16))
    assert crop_size(found, large, machine, 640) == Size(640, 16)
    with pytest.raises(FolderError, match='give --image-size 640'):
        crop_size(found, large, machine, 639)
    plan = schedule('detect', 5000, 'large', Size(480, 16), machine)
    cfg = detect(found, large, plan, tmp_path)
    assert cfg.model.backbone.window_size == 14
    assert cfg.model.backbone.global_blocks == (5, 11, 17, 23)
    assert cfg.model.neck.num_outs == 5 and cfg.model.rpn_head.anchor_generator.scales == [8]
    assert cfg.optim_wrapper.paramwise_cfg.layer_decay_rate == 0.8
    assert cfg.train_cfg.max_iters == plan.total and plan.short == (not gpu)


def test_bad_folders(scenes: Path, tmp_path: Path) -> None:
    path = scenes / 'boxes.json'
    good = path.read_text()
    with pytest.raises(FolderError, match='There is no folder .*nowhere'):
        survey_boxes(tmp_path / 'nowhere')
    (scenes / 'other.json').write_text(good)
    with pytest.raises(FolderError, match=r'has these jsons: boxes\.json, other\.json\. Expected'):
        survey_boxes(scenes)
    (scenes / 'other.json').unlink()
    change(path, lambda content: content['images'][0].update(file_name='gone.png'))
    with pytest.raises(FolderError, match=r'names gone\.png, which is not in'):
        survey_boxes(scenes)
    path.write_text(good)
    change(path, lambda content: content['images'][5].update(file_name='gone.png'))
    with pytest.raises(CocoError, match='names 1 of 20 images that are not there'):
        survey_boxes(scenes)
    path.write_text(good)
    change(path, lambda content: content.update(annotations=[]))
    with pytest.raises(FolderError, match='not one box to train on'):
        survey_boxes(scenes)
    path.rename(scenes / 'train.json').write_text(good)
    (scenes / 'val.json').write_text(good)
    change(scenes / 'val.json', lambda content: content['categories'][0].update(name='cube'))
    with pytest.raises(FolderError, match='differ in their categories'):
        survey_boxes(scenes)
