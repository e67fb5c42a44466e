"""A pack is read as the folder that it was made of, bit for bit, and nothing else is."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.datasets import PackInputs

from beitv2_mm.datasets import ImageFolder, LoadImageFromFile
from beitv2_mm.datasets.packed import PREFIX, open_pack
from beitv2_mm.datasets.packing import pack
from beitv2_mm.datasets.reading import UnreadableImageError
from beitv2_mm.engine import launch
from beitv2_mm.jobs.survey import survey
from support.faulty_images import KINDS, originals
from support.shrink import shrink
from support.tiny import CIFAR

pytestmark = pytest.mark.cpu_only(reason='images are read and prepared on the CPU')

ROOT = Path(__file__).parents[2]
LONG = 'n' * 120  # longer than the classic header of tar holds


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real images in class folders, and what makes a folder difficult."""
    folder = tmp_path_factory.mktemp('data') / 'images'
    shutil.copytree(CIFAR, folder)
    good = sorted(CIFAR.rglob('*.png'))
    for name in ('cat/deep/er/b.PNG', f'dog/{LONG}.png', 'a.b/é\udcff\n.png', 'a/x.png', 'top.png'):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(good[len(name) % 20], folder / name)
    (folder / 'no image').mkdir()  # a class all the same
    for name in ('.hidden/x.png', 'cat/.x.png', 'cat/.deep/x.png', 'cat/notes.txt'):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(good[0], folder / name)
    os.symlink(good[3], folder / 'dog/link.png')
    random = np.random.default_rng(0)
    for number, kind in enumerate(KINDS):
        path = folder / f'truck/{number:02d}{kind.suffix}'
        kind.make(originals()[number % 20], path, random)
    return folder


@pytest.fixture(scope='module')
def images(folder: Path) -> str:
    """The pack of `folder`."""
    path = f'{folder}.tar'
    assert pack(folder, path) == {}
    return path


def infos(root: object, **settings: object) -> list[tuple[str, object]]:
    """Name and label of all samples."""
    data = ImageFolder(str(root), **settings)
    found = [data.get_data_info(i) for i in range(len(data))]
    return [(info['img_path'].split('/images', 1)[1], info.get('gt_label')) for info in found]


SPLITS = [
    {},
    dict(val_images=5),
    dict(val_images=5, subset='val', test_mode=True),
    dict(with_label=True, indices=9),
    dict(with_label=True, val_images=3),
]


@pytest.mark.parametrize('settings', SPLITS, ids=str)
def test_samples_labels_and_splits_are_the_same(folder: Path, images: str, settings: dict) -> None:
    pipeline = [dict(type=LoadImageFromFile)]
    expected = infos(folder, pipeline=pipeline, **settings)
    found = infos(images, pipeline=pipeline, **settings)
    assert found == [(f'.tar{name}', label) for name, label in expected]


def test_balanced_splits_are_the_same(tmp_path: Path) -> None:
    pack(CIFAR, tmp_path / 'images.tar')
    shutil.copytree(CIFAR, tmp_path / 'images')
    for settings in (dict(subset='val'), dict(samples_per_class=1)):
        settings.update(with_label=True, val_per_class=1)
        expected = infos(tmp_path / 'images', **settings)
        assert len(expected) == 10
        found = infos(tmp_path / 'images.tar', **settings)
        assert found == [(f'.tar{name}', label) for name, label in expected]


def test_classes_are_the_same(folder: Path, images: str) -> None:
    data = ImageFolder(images, with_label=True)
    classes = data.metainfo['classes']
    assert classes == ImageFolder(str(folder), with_label=True).metainfo['classes']
    assert {'a', 'a.b', 'no image'} < set(classes) and '.hidden' not in classes
    part = ImageFolder(images, data_prefix='cat')
    assert part.files() == ImageFolder(str(folder / 'cat')).files() and len(part) == 3
    with pytest.raises(FileNotFoundError, match='has no class folders'):
        ImageFolder(images, data_prefix='a', with_label=True)


def test_pixels_and_faults_are_the_same(folder: Path, images: str) -> None:
    messages: list[str] = []

    def outcomes(root: str) -> list:
        data, found = ImageFolder(root), []
        for name in data.files():
            try:
                found.append((name, LoadImageFromFile().read(data.path(name)).tolist()))
            except UnreadableImageError as error:
                found.append((name, error.reason))
                messages.append(str(error))
        return found

    expected = outcomes(str(folder))
    messages.clear()
    assert outcomes(images) == expected
    assert all(f'Cannot read {PREFIX}{images}/truck/' in message for message in messages)
    assert {'empty', 'no image', 'damaged', 'too large', 'unsupported'} <= {
        pixels for _, pixels in expected if isinstance(pixels, str)
    }


@pytest.mark.parametrize('open_before', [False, True])
def test_forked_workers_read_the_same_and_report(
    folder: Path, images: str, open_before: bool
) -> None:
    def batches(root: str) -> tuple[list, dict]:
        loader = Runner.build_dataloader(
            dict(
                dataset=dict(
                    type=ImageFolder,
                    data_root=root,
                    pipeline=[dict(type=LoadImageFromFile), dict(type=PackInputs)],
                    lazy_init=not open_before,
                ),
                sampler=dict(type='DefaultSampler', shuffle=True),
                batch_size=3,
                num_workers=2,
                multiprocessing_context='fork',
            ),
            seed=1,
        )
        found = [
            (image.tolist(), sample.img_path.removeprefix(PREFIX).removeprefix(root))
            for batch in loader
            for image, sample in zip(batch['inputs'], batch['data_samples'], strict=True)
        ]
        bad = loader.dataset.unreadable()
        return found, {
            name.removeprefix(PREFIX).removeprefix(root): why for name, why in bad.items()
        }

    open_pack.cache_clear()
    ours, theirs = batches(images), batches(str(folder))
    assert ours == theirs and len(ours[1]) > 5


class Interrupt(Hook):
    priority = 'LOWEST'

    def after_train_iter(self, runner: Runner, *args: object, **kwargs: object) -> None:
        if runner.iter == 2:
            raise KeyboardInterrupt


def test_training_and_resume_in_mid_epoch_equal_those_on_the_folder(tmp_path: Path) -> None:
    pack(CIFAR, tmp_path / 'images.tar')

    def train(name: str, root: object, resume: bool = False, hooks: tuple = ()) -> dict:
        cfg = Config.fromfile(ROOT / 'configs/pretrain/beitv2_tiny_1xb32_cifar10.py')
        shrink(cfg, tmp_path, iterations=4)
        cfg.work_dir = str(tmp_path / name)
        cfg.experiment_name = f'packed_{name}_{resume}'
        cfg.train_dataloader.dataset.data_root = str(root)
        cfg.default_hooks.checkpoint.update(interval=1, by_epoch=False)
        cfg.resume = resume
        runner = launch.build_runner(cfg)
        for hook in hooks:
            runner.register_hook(hook)
        try:
            runner.train()
        except KeyboardInterrupt:
            return {}
        return runner.model.state_dict()

    expected = train('folder', CIFAR)
    whole = train('pack', tmp_path / 'images.tar')
    train('killed', tmp_path / 'images.tar', hooks=(Interrupt(),))
    assert not list((tmp_path / 'killed').glob('iter_4.pth'))
    resumed = train('killed', tmp_path / 'images.tar', resume=True)
    assert expected
    for name, value in expected.items():
        assert torch.equal(whole[name], value) and torch.equal(resumed[name], value), name


def test_any_tar_program_unpacks_it(folder: Path, images: str, tmp_path: Path) -> None:
    subprocess.run(['tar', 'xf', images, '-C', str(tmp_path)], check=True)
    data = ImageFolder(str(folder))
    assert ImageFolder(str(tmp_path)).files() == data.files()
    for name in data.files():
        assert (tmp_path / name).read_bytes() == Path(data.path(name)).read_bytes()
    pack(images, tmp_path / 'again.tar')  # a pack is a source like any other
    assert (tmp_path / 'again.tar').read_bytes() == Path(images).read_bytes()


def test_the_survey_counts_the_same(tmp_path: Path) -> None:
    pack(CIFAR, tmp_path / 'images.tar')
    ours, theirs = survey(tmp_path / 'images.tar'), survey(CIFAR)
    assert (ours.num_images, ours.short_side, ours.classes) == (20, 32, theirs.classes)
