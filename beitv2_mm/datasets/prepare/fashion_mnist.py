"""Fashion-MNIST: its idx files, or a download of them -> items (N, 28, 28) and labels (N,)."""

import gzip
import subprocess
import zlib
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mmengine.logging import print_log
from torchvision.datasets import FashionMNIST

from beitv2_mm.compat.download import timeouts

COUNTS = {'train': 60000, 'test': 10000}
DEBIAN_PACKAGE = 'dataset-fashion-mnist'
DEBIAN = Path('/usr/share/datasets/fashion-mnist')  # where that package puts the files
ITEM = 28  # pixels


class Items(NamedTuple):
    """Fashion-MNIST images (N, 28, 28) uint8 and labels (N,) from 0."""

    images: np.ndarray
    labels: np.ndarray


def read_items(folder: str | Path, split: str) -> Items:
    """Fashion-MNIST's 'train' or 'test' items from a folder of its idx(.gz) files.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or not Fashion-MNIST's.
    """
    part, count = ('train' if split == 'train' else 't10k'), COUNTS[split]
    images = _read_idx(Path(folder), f'{part}-images-idx3-ubyte', (count, ITEM, ITEM))
    return Items(images, _read_idx(Path(folder), f'{part}-labels-idx1-ubyte', (count,)))


def _read_idx(folder: Path, name: str, shape: tuple[int, ...]) -> np.ndarray:
    path = folder / name
    if not path.is_file():
        path = folder / f'{name}.gz'
    if not path.is_file():
        raise FileNotFoundError(
            f'There is no {name}(.gz) in {folder}. Install the Debian package '
            'dataset-fashion-mnist, or give --fashion download.'
        )
    header = bytes([0, 0, 8, len(shape)]) + np.array(shape, '>u4').tobytes()
    size = len(header) + prod(shape)
    try:
        with gzip.open(path) if path.suffix == '.gz' else path.open('rb') as file:
            content = file.read(size + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f'{path} is not a complete gzip file ({error}).') from error
    if not content.startswith(header) or len(content) != size:
        raise ValueError(f'{path} is not an idx file of {shape} bytes, as Fashion-MNIST has it.')
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


def find_items(source: str, cache: Path) -> Path:
    """The folder of the files that ``source`` names, see `beitv2_mm.datasets.prepare.composites`;
    what is fetched goes below ``cache``.

    Raises:
        FileNotFoundError: they cannot be downloaded.
    """
    if source == 'auto' and DEBIAN.is_dir():
        return DEBIAN
    if source not in ('auto', 'download'):
        return Path(source).expanduser()
    try:
        with timeouts():
            for train in (True, False):
                FashionMNIST(cache, train=train, download=True)
        return cache / 'FashionMNIST/raw'
    except (OSError, RuntimeError) as error:
        if source == 'download':
            raise
        print_log(
            f'torchvision could not download Fashion-MNIST ({error}); trying apt-get.', 'current'
        )
    cache.mkdir(parents=True, exist_ok=True)
    try:
        package = ['apt-get', 'download', '-q', DEBIAN_PACKAGE]
        subprocess.run(package, cwd=cache, check=True, capture_output=True)
        (file,) = cache.glob('*.deb')
        subprocess.run(['dpkg-deb', '-x', file, cache], check=True, capture_output=True)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        raise FileNotFoundError(
            f'Fashion-MNIST cannot be downloaded ({error}): fetch the four files of '
            'https://github.com/zalandoresearch/fashion-mnist by hand and give their folder.'
        ) from error
    return cache / DEBIAN.relative_to('/')
