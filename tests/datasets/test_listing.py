"""Links in a folder of images: followed, and where that cannot be, counted and named."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from mmpretrain.datasets import PackInputs
from PIL import Image

from beitv2_mm.datasets import ImageFolder, LoadImageFromFile, reading
from beitv2_mm.segmentation import ImageMaskFolder, LoadMask
from support.tiny import CIFAR

pytestmark = pytest.mark.cpu_only(reason='images are read and prepared on the CPU')

PIPELINE = [dict(type=LoadImageFromFile), dict(type=PackInputs)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images in two classes, and five links: two good ones, two broken, two in a circle."""
    root = tmp_path / 'photos'
    files = sorted(CIFAR.glob('*/*.png'))
    for name, chosen in (('cat', files[:2]), ('dog', files[2:4])):
        (root / name).mkdir(parents=True)
        for file in chosen:
            shutil.copy(file, root / name)
    (root / 'linked.png').symlink_to(files[4])
    (root / 'more').symlink_to(CIFAR / 'ship')
    (root / 'broken.png').symlink_to(tmp_path / 'gone.png')
    (root / 'itself.png').symlink_to('itself.png')
    (root / 'loop').symlink_to('loop')
    (root / 'dog/up').symlink_to(root)
    (root / 'above').symlink_to(tmp_path)
    return root


def names(dataset: ImageFolder, root: Path) -> list[str]:
    infos = map(dataset.get_data_info, range(len(dataset)))
    return [os.path.relpath(info['img_path'], root) for info in infos]


def test_links_that_lead_nowhere_are_skipped_and_counted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    for module in ('skipping', 'image_folder'):
        monkeypatch.setattr(
            f'beitv2_mm.datasets.{module}.print_log', lambda text, **kwargs: said.append(text)
        )
    monkeypatch.setattr(reading, 'RETRY_DELAYS', (100, 100))  # a link in a circle stays one
    dataset = ImageFolder(str(folder), pipeline=PIPELINE)
    listed = names(dataset, folder)
    assert len(listed) == 4 + 1 + 2 + 2
    assert {'linked.png', 'broken.png', 'itself.png'} < set(listed)
    for i in range(len(dataset)):
        assert dataset[i]['inputs'].shape == (3, 32, 32)
    circles = [str(folder / name) for name in ('above', 'dog/up')]
    broken = [str(folder / name) for name in ('broken.png', 'itself.png')]
    assert dataset.unreadable() == dict.fromkeys([*circles, *broken], 'missing')
    assert dataset.num_unreadable == 4
    assert '2 links in' in said[0] and 'e.g. above: they were not followed' in said[0]
    assert any('broken.png: missing (a link to nothing)' in text for text in said)
    assert any('itself.png: missing (it is a link in a circle)' in text for text in said)


def test_links_in_a_circle_are_no_classes(folder: Path) -> None:
    dataset = ImageFolder(str(folder), with_label=True)
    assert dataset.metainfo['classes'] == ('cat', 'dog', 'more')
    assert dataset.get_gt_labels().tolist() == [0, 0, 1, 1, 2, 2]


def test_pairs_with_broken_links(tmp_path: Path) -> None:
    images, masks = tmp_path / 'images', tmp_path / 'masks'
    images.mkdir()
    masks.mkdir()
    for i, file in enumerate(sorted(CIFAR.glob('*/*.png'))[:4]):
        shutil.copy(file, images / f'{i}.png')
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(masks / f'{i}.png')
    (images / 'up').symlink_to(tmp_path)
    for folder, other in ((images, masks), (masks, images)):  # of 4 the image, of 5 the mask
        name = f'{4 + (folder == masks)}.png'
        (folder / name).symlink_to('gone.png')
        shutil.copy(other / '0.png', other / name)
    pipeline = [dict(type=LoadImageFromFile), dict(type=LoadMask)]
    dataset = ImageMaskFolder(('a', 'b'), str(tmp_path), pipeline=pipeline)
    assert len(dataset) == 6
    assert all(dataset[i]['gt_seg_map'].shape == (32, 32) for i in range(6))
    unreadable = {Path(path).name: reason for path, reason in dataset.unreadable().items()}
    assert unreadable == {'up': 'missing', '4.png': 'missing', '5.png': 'missing'}
