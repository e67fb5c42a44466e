import os
import shutil
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import RandomFlip
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.runner import Runner
from mmpretrain.datasets.transforms import ColorJitter, PackInputs, RandomResizedCrop

from beitv2_mm.datasets import BlockwiseMask, ImageFolder, LoadImageFromFile

pytestmark = pytest.mark.cpu_only(reason='images are read and prepared on the CPU')

CIFAR = Path(__file__).parents[1] / 'data' / 'cifar10'
LOAD = [dict(type=LoadImageFromFile), dict(type=PackInputs)]


def names(dataset):
    return [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]


@pytest.fixture
def folder(tmp_path):
    """Four good images, one damaged one and things that are no images."""
    good = sorted(CIFAR.rglob('*.png'))
    (tmp_path / 'deep' / 'deeper').mkdir(parents=True)
    (tmp_path / '.hidden').mkdir()
    shutil.copy(good[0], tmp_path / 'b.PNG')
    shutil.copy(good[1], tmp_path / 'deep' / 'deeper' / 'a.png')
    cv2.imwrite(str(tmp_path / 'deep' / 'c.Jpeg'), cv2.imread(str(good[2])))
    os.symlink(good[3], tmp_path / 'link.png')
    (tmp_path / 'broken.png').write_bytes(good[4].read_bytes()[:200])
    shutil.copy(good[5], tmp_path / '.hidden' / 'd.png')
    shutil.copy(good[5], tmp_path / '.e.png')
    (tmp_path / 'notes.txt').write_text('no image')
    return tmp_path


@pytest.fixture
def logged(monkeypatch):
    messages = []
    monkeypatch.setattr(
        'beitv2_mm.datasets.skipping.print_log', lambda text, **kwargs: messages.append(text)
    )
    return messages


def test_any_tree_of_images(folder):
    found = [os.path.relpath(name, folder) for name in names(ImageFolder(str(folder)))]
    assert found == ['b.PNG', 'broken.png', 'deep/c.Jpeg', 'deep/deeper/a.png', 'link.png']
    assert len(ImageFolder(str(folder), indices=2)) == 2
    assert len(ImageFolder(str(folder.parent), data_prefix=folder.name)) == 5


def test_labels_are_the_folders():
    dataset = ImageFolder(str(CIFAR), with_label=True, pipeline=LOAD)
    assert len(dataset) == 20
    assert dataset.metainfo['classes'][0] == 'airplane'
    assert dataset.get_gt_labels().tolist() == sorted(2 * list(range(10)))
    assert dataset[3]['data_samples'].gt_label.tolist() == [1]
    assert dataset[3]['inputs'].shape == (3, 32, 32)


def test_hidden_folders_are_no_classes(tmp_path):
    """Notebooks leave .ipynb_checkpoints; it was a class, and its images were labelled."""
    shutil.copytree(CIFAR, tmp_path, dirs_exist_ok=True)
    shutil.copytree(CIFAR / 'cat', tmp_path / '.ipynb_checkpoints')
    shutil.copytree(CIFAR / 'cat', tmp_path / 'dog/.thumbnails')
    ours, theirs = (ImageFolder(str(root), with_label=True) for root in (tmp_path, CIFAR))
    assert ours.metainfo['classes'] == theirs.metainfo['classes']
    assert ours.get_gt_labels().tolist() == theirs.get_gt_labels().tolist()
    with pytest.raises(ValueError, match='10 class folders; metainfo names 2 classes'):
        ImageFolder(str(CIFAR), with_label=True, metainfo=dict(classes=('a', 'b')))
    (tmp_path / 'new').mkdir()
    shutil.copy(next(CIFAR.rglob('*.png')), tmp_path / 'new.png')
    for name in os.listdir(CIFAR):
        shutil.rmtree(tmp_path / name)
    with pytest.raises(FileNotFoundError, match='class folders new in .* have no image'):
        ImageFolder(str(tmp_path), with_label=True)


def test_balanced_disjoint_subsets(tmp_path):
    for name in ('x', 'y'):
        (tmp_path / name).mkdir()
        for i in range(20):
            (tmp_path / name / f'{i}.png').touch()

    def select(**settings):
        dataset = ImageFolder(str(tmp_path), with_label=True, **settings)
        return set(names(dataset)), dataset.get_gt_labels().tolist()

    val, labels = select(subset='val', val_per_class=5)
    assert labels == 5 * [0] + 5 * [1]
    train, labels = select(val_per_class=5)
    assert labels == 15 * [0] + 15 * [1]
    assert not val & train
    few, labels = select(val_per_class=5, samples_per_class=3)
    assert labels == 3 * [0] + 3 * [1]
    more, _ = select(val_per_class=5, samples_per_class=8)
    assert few < more < train
    assert few == select(val_per_class=5, samples_per_class=3)[0]
    assert few != select(val_per_class=5, samples_per_class=3, split_seed=1)[0]
    with pytest.raises(ValueError, match='Class x has 20 images.*need 22'):
        select(val_per_class=2, samples_per_class=20)


@pytest.mark.parametrize('split', [dict(val_images=8), dict(val_per_class=2)])
def test_unreadable_images_are_left_out_of_those_held_out(tmp_path, split):
    shutil.copytree(CIFAR, tmp_path, dirs_exist_ok=True)
    settings = dict(with_label=True, subset='val', test_mode=True, **split)
    pipeline = [dict(type=LoadImageFromFile)]
    broken = ImageFolder(str(tmp_path), pipeline=pipeline, **settings).get_data_info(0)['img_path']
    Path(broken).write_bytes(b'no picture')
    left = ImageFolder(str(tmp_path), pipeline=pipeline, **settings)
    assert broken not in {left[i]['img_path'] for i in range(len(left))}
    assert list(left.unreadable()) == [broken]


@pytest.mark.parametrize('with_label', [False, True])
def test_hold_out_without_labels(tmp_path, with_label):
    (tmp_path / 'x').mkdir()
    for i in range(40):
        (tmp_path / 'x' / f'{i:02d}.png').touch()

    def select(**settings):
        return names(ImageFolder(str(tmp_path), with_label=with_label, **settings))

    whole = select()
    for wanted, size in ((3, 3), (2000, 4)):  # at most a tenth
        val = select(subset='val', val_images=wanted)
        train = select(val_images=wanted)
        assert len(val) == size and val == sorted(val)
        assert sorted(val + train) == whole
    assert val != select(subset='val', val_images=2000, split_seed=1)
    for path in whole[2:]:
        os.unlink(path)
    assert len(select(val_images=9)) == len(select(subset='val', val_images=9)) == 1
    os.unlink(whole[0])
    with pytest.raises(ValueError, match='one image; val_images=9 needs at least two'):
        select(val_images=9)


def test_unreadable_image_of_the_hold_out_is_left_out(tmp_path, logged):
    good = next(CIFAR.rglob('*.png'))
    for i in range(20):
        shutil.copy(good, tmp_path / f'{i:02d}.png')
    settings = dict(subset='val', val_images=2, pipeline=LOAD, test_mode=True)
    bad, other = names(ImageFolder(str(tmp_path), **settings))
    Path(bad).write_bytes(b'not an image')
    dataset = ImageFolder(str(tmp_path), **settings)
    assert names(dataset) == [other]
    assert dataset[0]['inputs'].shape == (3, 32, 32)
    assert len(logged) == 1 and bad in logged[0] and 'out of the validation' in logged[0]
    strict = ImageFolder(str(tmp_path), on_error='raise', **settings)
    with pytest.raises(RuntimeError, match=r'Cannot read .*: no image'):
        strict[names(strict).index(bad)]
    Path(other).write_bytes(b'')
    with pytest.raises(RuntimeError, match='Not one of the 2 images held out'):
        ImageFolder(str(tmp_path), **settings)


def test_unreadable_image_is_skipped_counted_and_named_once(folder, logged):
    dataset = ImageFolder(str(folder), pipeline=LOAD)
    bad = names(dataset).index(str(folder / 'broken.png'))
    for _ in range(5):
        assert dataset[bad]['inputs'].shape == (3, 32, 32)
    assert dataset.num_unreadable == 1
    assert len(logged) == 1
    assert 'broken.png' in logged[0]


def test_replacement_follows_the_random_state(folder):
    dataset = ImageFolder(str(folder), pipeline=LOAD)
    picks = []
    for _ in range(2):
        np.random.seed(1)
        picks.append([dataset[1]['data_samples'].img_path for _ in range(6)])
    assert picks[0] == picks[1]
    assert len(set(picks[0])) > 1


@pytest.mark.parametrize('settings', [{'on_error': 'raise'}, {'test_mode': True}])
def test_unreadable_image_raises_with_its_name(folder, settings):
    dataset = ImageFolder(str(folder), pipeline=LOAD, **settings)
    with pytest.raises(RuntimeError, match='broken.png.*Repair or remove'):
        dataset[1]


def loader(dataset, **settings):
    return Runner.build_dataloader(
        dict(
            dataset=dataset,
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=2,
            **settings,
        )
    )


def test_workers_report_to_the_main_process(folder):
    batches = loader(dict(type=ImageFolder, data_root=str(folder), pipeline=LOAD), num_workers=2)
    assert sum(len(batch['inputs']) for batch in batches) == 5
    assert batches.dataset.num_unreadable == 1


def test_error_in_a_worker_names_the_file(folder):
    dataset = ImageFolder(str(folder), pipeline=LOAD, on_error='raise')
    with pytest.raises(RuntimeError, match='broken.png'):
        list(loader(dataset, num_workers=1))


def test_nothing_readable(tmp_path, logged):
    for i in range(3):
        (tmp_path / f'{i}.png').write_bytes(b'not an image')
    dataset = ImageFolder(str(tmp_path), pipeline=LOAD)
    with pytest.raises(RuntimeError, match=r'101 images in a row.*\.png.*3 of 3'):
        dataset[0]
    assert len(logged) == 3


def test_a_failing_pipeline_is_not_an_unreadable_image(folder):
    pipeline = [LOAD[0], dict(type=BlockwiseMask, patch_size=5, num_masked=5)]
    with pytest.raises(RuntimeError, match=r'BlockwiseMask failed on .*b\.PNG.*32 x 32 pixels'):
        ImageFolder(str(folder), pipeline=pipeline)[0]


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match='no image folder .*nowhere.*data_root'):
        ImageFolder(str(tmp_path / 'nowhere'))
    with pytest.raises(FileNotFoundError, match=r'no image in .*\.jpeg, \.jpg, \.pgm, \.png'):
        ImageFolder(str(tmp_path))
    with pytest.raises(FileNotFoundError, match='no class folders.*with_label=False'):
        ImageFolder(str(tmp_path), with_label=True)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'on_error': 'ignore'}, "on_error is 'ignore'"),
        ({'subset': 'test'}, "subset is 'test'"),
        ({'subset': 'val', 'with_label': True}, 'val_images or val_per_class >= 1'),
        ({'val_images': 5, 'val_per_class': 1, 'with_label': True}, 'leave val_per_class'),
        ({'samples_per_class': 3}, 'with_label=True'),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        ImageFolder(str(CIFAR), **settings)


def test_registered_for_text_configs():
    dataset = ROOT_DATASETS.build(
        dict(
            type='beitv2_mm.ImageFolder',
            data_root=str(CIFAR),
            pipeline=[dict(type='beitv2_mm.BlockwiseMask', grid=4, num_masked=3)],
        )
    )
    assert dataset[0]['mask'].sum() == 3


def test_pretraining_pipeline():
    dataset = ImageFolder(
        str(CIFAR),
        pipeline=[
            dict(type=LoadImageFromFile),
            dict(
                type=RandomResizedCrop,
                scale=64,
                crop_ratio_range=(0.2, 1.0),
                interpolation='bicubic',
                backend='pillow',
            ),
            dict(type=RandomFlip, prob=0.5),
            dict(type=ColorJitter, brightness=0.4, contrast=0.4, saturation=0.4, backend='cv2'),
            dict(type=BlockwiseMask, patch_size=8, num_masked=24, min_block=4),
            dict(type=PackInputs),
        ],
    )
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        batch = next(iter(loader(dataset, num_workers=1)))
    assert batch['inputs'][0].shape == (3, 64, 64)
    mask = batch['data_samples'][0].mask
    assert mask.dtype == torch.bool
    assert mask.shape == (8, 8)
    assert mask.sum() == 24
