"""Images to boxes and masks in one line."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from beitv2_mm.apis import DetectionInferencer, detect_images, find_images
from beitv2_mm.checkpoint import CheckpointError
from beitv2_mm.datasets.coco_layout import check_coco, read_coco
from beitv2_mm.visualization.instances import Instances, draw_instances
from support.scenes import CLASSES
from support.shrink import shrink
from support.tools import run_tool

pytest.importorskip('mmdet')

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / 'configs/detection'


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config, the weights that a step gave it, and its images."""
    folder = tmp_path_factory.mktemp('detector')
    cfg = shrink(
        Config.fromfile(RECIPES / 'beitv2_tiny_mask_rcnn_1xb16_400i_composites.py'), folder, 1
    )
    cfg.model.test_cfg.rcnn.score_thr = 0.0
    cfg.dump(folder / 'small.py')
    run_tool('train', folder / 'small.py', '--work-dir', folder / 'work')
    return folder


def test_objects_of_images(trained: Path, tmp_path: Path) -> None:
    """A table, a json that a detector could be trained on, and pictures."""
    inferencer = DetectionInferencer(trained / 'small.py', trained / 'work/iter_1.pth')
    assert inferencer.classes == list(CLASSES)
    inferencer.threshold = 0.0
    images = trained / 'data/images/val'
    files = find_images([images])
    (tmp_path / 'broken.png').write_bytes(b'no picture')
    files.append(str(tmp_path / 'broken.png'))
    counted: list[int] = []
    unreadable = detect_images(files, inferencer, tmp_path / 'out', counted.append)
    assert list(unreadable) == files[-1:] and sum(counted) == len(files) == 9
    with (tmp_path / 'out/detections.csv').open() as file:
        rows = list(csv.DictReader(file))
    path = tmp_path / 'out/detections.json'
    content = read_coco(path)
    found = check_coco(content, path, '')
    assert found.images == 8 and found.boxes == len(rows) > 8
    assert found.masks == {'RLE': found.boxes} and tuple(found.classes) == CLASSES
    scores = [box['score'] for box in content['annotations']]
    assert [f'{score:.4f}' for score in scores] == [row['score'] for row in rows]
    (result,) = inferencer(files[0])
    assert result.image.shape == (64, 64, 3) and result.masks.shape == (len(result.boxes), 64, 64)
    assert (np.diff(result.scores) <= 0).all()
    inferencer.threshold = float(result.scores[0])
    assert len(inferencer(files[0])[0].boxes) >= 1
    (of_array,) = inferencer(np.asarray(Image.open(files[0]).convert('RGB'))[..., ::-1])
    np.testing.assert_allclose(of_array.boxes, inferencer(files[0])[0].boxes)
    names = sorted(path.name for path in (tmp_path / 'out').glob('pictures/**/*.png'))
    assert names == [f'{i}.png' for i in range(8)]


def test_a_classifier_is_no_detector() -> None:
    with pytest.raises(ValueError, match='is no detection model: ImageClassifier'):
        DetectionInferencer(
            ROOT / 'configs/classification/beitv2_tiny_1xb32_8e_cifar10.py', pretrained=False
        )


def test_weights_of_another_network_are_refused(trained: Path, tmp_path: Path) -> None:
    (tmp_path / 'other.pth').write_bytes(b'nothing')
    with pytest.raises(CheckpointError, match=r'other\.pth'):
        DetectionInferencer(trained / 'small.py', tmp_path / 'other.pth')


def test_pictures_show_boxes_masks_and_names() -> None:
    image = np.zeros((64, 80, 3), np.uint8)
    masks = np.zeros((2, 64, 80), bool)
    masks[0, 30:50, 30:60] = True
    boxes = np.array([[30, 30, 60, 50], [0, 0, 10, 10]], float)
    palette = np.array([[255, 0, 0], [0, 255, 0]], np.uint8)
    found = Instances(boxes, np.array([0, 1]), np.array([0.5, 1.0]), masks)
    picture = draw_instances(image, found, ['cat', 'dog'], palette)
    pixels = np.asarray(picture)
    assert picture.size == (400, 320)  # enlarged, so that the names can be read
    assert pixels[200, 225].tolist() == [114, 0, 0]  # inside of the mask
    assert pixels[200, 151].tolist() == [255, 0, 0]  # on the edge of its box
    assert (pixels.min(axis=2) > 150).any()  # the letters
    nothing = Instances(boxes[:0], np.array([], int), boxes[:0, 0], None)
    assert draw_instances(image, nothing, [], palette).size == (400, 320)


def test_results_are_valid_json(trained: Path, tmp_path: Path) -> None:
    """Where nothing is found, too."""
    inferencer = DetectionInferencer(trained / 'small.py', trained / 'work/iter_1.pth')
    inferencer.threshold = 1.0
    files = find_images([trained / 'data/images/val/0.png'])
    assert detect_images(files, inferencer, tmp_path) == {}
    content = json.loads((tmp_path / 'detections.json').read_text())
    assert content['annotations'] == [] and len(content['images']) == 1
    assert (tmp_path / 'pictures/0.png').is_file()
