"""tools/prepare_coco.py on a folder of scenes, sound and with faults."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.scenes import write_scenes
from support.tools import run_tool

pytestmark = pytest.mark.cpu_only(reason='files are read, nothing is computed')


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_scenes(tmp_path, count=4, parts=('train',))


def run(root: Path) -> int | str:
    with pytest.raises(SystemExit) as stopped:
        run_tool('prepare_coco', root / 'annotations/train.json', '--images', root / 'images/train')
    return stopped.value.code


def test_a_sound_folder_is_counted(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(root) == 0
    said = capsys.readouterr().out
    boxes = len(json.loads((root / 'annotations/train.json').read_text())['annotations'])
    assert f'4 images, 0 of them without boxes; {boxes} boxes, 0 of them crowds' in said
    assert f'masks: {boxes} RLE' in said and 'disc' in said


def test_faults_are_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = root / 'annotations/train.json'
    content = json.loads(file.read_text())
    content['annotations'][0]['bbox'][3] = 0
    file.write_text(json.dumps(content))
    (root / 'images/train/2.png').write_bytes(b'no image')
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(root / 'images/train/3.png')
    assert run(root) == 1
    said = capsys.readouterr().out
    assert '1 boxes have no area, with the ids: 1' in said
    assert '2.png' in said and '3.png has 20 x 30 pixels' in said and '64 x 64' in said
    (root / 'images/train/1.png').unlink()
    assert 'names 1 of 4 images that are not there' in str(run(root))
