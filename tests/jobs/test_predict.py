"""`finetune --from FILE`, `segment-train` and `predict` as a user runs them."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from beitv2_mm.checkpoint import convert_file
from beitv2_mm.jobs import predict
from beitv2_mm.jobs.mask_survey import survey_masks
from beitv2_mm.jobs.survey import FolderError
from support.tools import run_tool

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / 'tests/data/cifar10'
pytestmark = pytest.mark.not_pretended(reason='it runs in processes of its own')

Command = Callable[..., str]


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_file_to_a_classifier_to_predictions(
    pretrained: Path, command: Command, tmp_path: Path
) -> None:
    """The config that was written gives the same through tools/train.py."""
    convert_file(pretrained / 'pretrain/epoch_1.pth', tmp_path / 'vit.safetensors', 'timm')
    start = ['finetune', IMAGES, '--from', 'vit.safetensors', '--out', 'classes']
    said = command(*start, '--epochs', 2, '--batch-size', 8, cwd=tmp_path)
    assert 'Top-1' in said and 'report:' in said
    (tmp_path / 'new').mkdir()
    (tmp_path / 'new/broken.png').write_bytes(b'no picture')
    arguments = ['predict', IMAGES, 'new', '--from', 'classes', '--out', 'predictions']
    assert '20 images, 1 unreadable' in command(*arguments, cwd=tmp_path)
    rows = read_table(tmp_path / 'predictions/predictions.csv')
    assert len(rows) == 20 and rows[0].keys() >= {'file', 'class1', 'score1', 'class5'}
    assert {row['class1'] for row in rows} <= {path.name for path in IMAGES.iterdir()}
    assert Image.open(tmp_path / 'predictions/pictures/001.png').width > 1000
    (broken,) = read_table(tmp_path / 'predictions/unreadable.csv')
    assert broken['file'].endswith('broken.png')

    config = tmp_path / 'classes/finetune.py'
    head = config.read_text().split('\n\n')[2]
    assert 'num_classes = 10\nmax_epochs = 2\n' in head and 'batch_size = 8' in head
    work = tmp_path / 'again'
    run_tool('train', config, '--work-dir', work / 'finetune')
    (work / 'finetune.py').write_bytes(config.read_bytes())
    (work / 'finetune/done.json').write_text('{}')
    predict([IMAGES], str(work), tmp_path / 'again_predictions')
    assert read_table(tmp_path / 'again_predictions/predictions.csv') == rows


def test_probe_and_features(pretrained: Path, command: Command, tmp_path: Path) -> None:
    start = ['finetune', IMAGES, '--from', pretrained, '--out', 'probe', '--probe']
    assert 'k-NN of frozen features' in command(*start, cwd=tmp_path)
    predict([IMAGES], str(pretrained), tmp_path / 'features', features=True)
    content = np.load(tmp_path / 'features/features.npz')
    assert content['features'].shape == (20, 192) and len(set(content['files'])) == 20
    assert np.isfinite(content['features']).all() and content['features'].std(0).min() > 0
    with pytest.raises(FolderError, match='a pretraining, which knows no classes: add --features'):
        predict([IMAGES], str(pretrained), tmp_path / 'none')


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Twenty pictures and their masks of three classes, in a folder with spaces in the names."""
    folder = tmp_path / 'pairs'
    for part in ('images', 'masks'):
        (folder / part).mkdir(parents=True)
    for i, file in enumerate(sorted(IMAGES.glob('*/*.png'))):
        Image.open(file).convert('RGB').resize((40, 32)).save(folder / f'images/a {i}.png')
        mask = np.zeros((32, 40), np.uint8)
        mask[8:24, i : i + 16] = 1 + i % 2
        mask[0] = 255
        Image.fromarray(mask).save(folder / f'masks/a {i}.png')
    return folder


def test_masks_to_a_segmentor_to_overlays(
    pretrained: Path, command: Command, pairs: Path, tmp_path: Path
) -> None:
    (pairs / 'classes.txt').write_text('sky\nhouse\ntree\n')
    start = ['segment-train', pairs, '--from', pretrained, '--out', 'segmentor', '--epochs', 2]
    assert 'Mean IoU' in command(*start, cwd=tmp_path)
    cfg = Config.fromfile(tmp_path / 'segmentor/segment.py')
    assert cfg.num_classes == 3 and tuple(cfg.classes) == ('sky', 'house', 'tree')
    assert cfg.model.decode_head.num_classes == cfg.model.auxiliary_head.num_classes == 3
    predict([pairs / 'images'], str(tmp_path / 'segmentor'), tmp_path / 'out')
    labels = np.asarray(Image.open(tmp_path / 'out/labels/a 3.png'))
    assert labels.shape == (32, 40) and labels.max() < 3
    assert (tmp_path / 'out/overlays/a 3.png').is_file()


def test_masks_that_cannot_be_trained_on(pairs: Path) -> None:
    found = survey_masks(pairs)
    assert found.classes == ('class 0', 'class 1', 'class 2')
    assert len(found.train) == 18 and not set(found.train) & set(found.val)
    (broken, good), images = found.val, pairs / 'images'
    content = (images / f'{broken}.png').read_bytes()
    (images / f'{broken}.png').write_bytes(content[:99])
    assert survey_masks(pairs).val == (good,)  # its validation would stop at the other one
    (images / f'{broken}.png').write_bytes(content)
    (pairs / 'classes.txt').write_text('sky\nhouse\n')
    with pytest.raises(FolderError, match=r'a 1\.png has the label 2, but .* names 2 classes'):
        survey_masks(pairs)
    (pairs / 'classes.txt').unlink()
    for path in (pairs / 'masks').iterdir():
        mask = np.asarray(Image.open(path))
        Image.fromarray(np.where(mask == 255, 0, mask * 60).astype(np.uint8)).save(path)
    with pytest.raises(FolderError, match='3 labels up to 120.*Labels count from 0'):
        survey_masks(pairs)
    for path in (pairs / 'masks').iterdir():
        mask = np.asarray(Image.open(path))
        Image.fromarray(np.where(mask > 0, 255, 0).astype(np.uint8)).save(path)
    with pytest.raises(FolderError, match=r'Is 255 the object\? Write 1 instead'):
        survey_masks(pairs)
    (pairs / 'masks/a 0.png').unlink()
    with pytest.raises(FolderError, match=r'1 of 20 images have no mask.*a 0\.png was expected'):
        survey_masks(pairs)
    with pytest.raises(FolderError, match=r'There is no folder .*images\. Expected are'):
        survey_masks(pairs / 'images')
