"""Composites: exact masks, disjoint splits, errors of their sources."""

import gzip
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from beitv2_mm.datasets.prepare import composites, fashion_mnist
from beitv2_mm.datasets.prepare.composites import CLASSES, compose, prepare
from beitv2_mm.datasets.prepare.fashion_mnist import read_items
from support.tiny import CIFAR

pytestmark = pytest.mark.cpu_only(reason='images are read and prepared on the CPU')

ITEMS = 12


def write_idx(path: Path, values: np.ndarray) -> None:
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, '>u4').tobytes()
    path.write_bytes(gzip.compress(header + values.tobytes()))


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A small stand-in for Fashion-MNIST; CIFAR-10's pictures are real."""
    fashion, cifar = tmp_path / 'fashion', tmp_path / 'cifar'
    fashion.mkdir()
    random = np.random.default_rng(0)
    for name in ('train', 't10k'):
        images = random.integers(16, 256, (ITEMS, 28, 28)).astype(np.uint8)
        images[:, :4] = 0
        write_idx(fashion / f'{name}-images-idx3-ubyte.gz', images)
        write_idx(fashion / f'{name}-labels-idx1-ubyte.gz', np.arange(ITEMS, dtype=np.uint8) % 10)
    cifar.mkdir()
    for split in ('train', 'test'):
        (cifar / split).symlink_to(CIFAR)
    monkeypatch.setattr(fashion_mnist, 'COUNTS', {'train': ITEMS, 'test': ITEMS})
    return fashion, cifar


def test_masks_are_exactly_the_items_pixels() -> None:
    picture = np.full((32, 32, 3), (200, 100, 50), np.uint8)
    item = np.zeros((28, 28), np.uint8)
    item[5:20, 8:15] = 90
    sizes = set()
    for seed in range(20):
        image, mask = compose(picture, item, 4, np.random.default_rng(seed))
        changed = (image != picture).any(-1)
        assert set(np.unique(mask)) == {0, 4}
        np.testing.assert_array_equal(changed, mask == 4)
        sizes.add(int(mask.astype(bool).sum()))
    assert len(sizes) > 3 and picture.std(axis=(0, 1)).max() == 0


def test_files(tmp_path: Path, sources: tuple[Path, Path]) -> None:
    fashion, cifar = sources
    out = tmp_path / 'out'
    prepare(out, cifar, fashion, (5, 2, 3))
    for split, number in (('train', 5), ('val', 2), ('test', 3)):
        files = sorted((out / 'images' / split).glob('*.png'))
        assert [file.name for file in files] == [f'{i:05d}.png' for i in range(number)]
        for file in files:
            mask = np.asarray(Image.open(out / 'masks' / split / file.name))
            assert np.asarray(Image.open(file)).shape == (32, 32, 3) and mask.shape == (32, 32)
            assert len(np.unique(mask)) == 2 and mask.max() < len(CLASSES)
    assert (out / 'classes.txt').read_text().split('\n')[:-1] == list(CLASSES)
    before = (out / 'images/train/00000.png').stat().st_mtime_ns
    prepare(out, cifar, fashion, (5, 2, 3))
    assert (out / 'images/train/00000.png').stat().st_mtime_ns == before
    prepare(out, cifar, fashion, (4, 2, 3))
    assert len(list((out / 'images/train').iterdir())) == 4


def test_scenes(tmp_path: Path, sources: tuple[Path, Path]) -> None:
    """One to four items each, none of them twice; the second run finds them finished."""
    fashion, cifar = sources
    out = tmp_path / 'out'
    prepare(out, cifar, fashion, (2, 1, 3), kind='scenes')
    for split, number in (('train', 2), ('val', 1), ('test', 3)):
        content = json.loads((out / f'annotations/{split}.json').read_text())
        assert len(content['images']) == number == len(list((out / f'images/{split}').iterdir()))
        boxes = Counter(box['image_id'] for box in content['annotations'])
        assert set(boxes) == set(range(1, number + 1)) and max(boxes.values()) <= 4
        assert [c['name'] for c in content['categories']] == list(CLASSES[1:])
    before = (out / 'composites.json').stat().st_mtime_ns
    prepare(out, cifar, fashion, (2, 1, 3), kind='scenes')
    assert (out / 'composites.json').stat().st_mtime_ns == before
    with pytest.raises(ValueError, match='4 composites were asked for, with 4 items each'):
        prepare(out, cifar, fashion, (3, 1, 1), kind='scenes')


def test_bad_sources(tmp_path: Path, sources: tuple[Path, Path]) -> None:
    fashion, cifar = sources
    with pytest.raises(ValueError, match='99 composites'):
        prepare(tmp_path / 'out', cifar, fashion, (90, 9, 1))
    with pytest.raises(FileNotFoundError, match='dataset-fashion-mnist'):
        read_items(tmp_path, 'train')
    labels = fashion / 'train-labels-idx1-ubyte.gz'
    labels.write_bytes(labels.read_bytes()[:20])
    with pytest.raises(ValueError, match=r'train-labels-idx1-ubyte\.gz is not a complete gzip'):
        read_items(fashion, 'train')
    write_idx(labels, np.zeros(3, np.uint8))
    with pytest.raises(ValueError, match=r'labels-idx1-ubyte\.gz is not an idx file of \(12,\)'):
        read_items(fashion, 'train')
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/thesis.txt').touch()
    with pytest.raises(ValueError, match=r'thesis\.txt'):
        prepare(tmp_path / 'mine', cifar, fashion, (1, 1, 1))


def test_auto_takes_what_is_installed_and_says_what_to_fetch_by_hand(
    tmp_path: Path, sources: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fashion, cifar = sources
    monkeypatch.setattr(fashion_mnist, 'DEBIAN', fashion)
    prepare(tmp_path / 'installed', cifar, counts=(2, 1, 1))
    assert (tmp_path / 'installed' / composites.MARKER).is_file()

    monkeypatch.setattr(fashion_mnist, 'DEBIAN', tmp_path / 'nowhere')
    monkeypatch.setattr(fashion_mnist.FashionMNIST, 'mirrors', ['http://127.0.0.1:9/'])
    monkeypatch.setenv('PATH', str(tmp_path))  # no apt-get
    for _ in range(2):  # what the first attempt leaves does not stop the second
        with pytest.raises(FileNotFoundError, match='by hand'):
            prepare(tmp_path / 'offline', cifar, counts=(2, 1, 1))
