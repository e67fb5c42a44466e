"""ADE20K (ADEChallengeData2016): unpacked safely, and every file of it checked.

``root/{images,annotations}/{training,validation}``: JPEGs, and PNGs with labels 0 (unlabelled) to
150.
"""

import lzma
import os
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from mmengine.logging import print_log

from beitv2_mm.datasets.prepare import progress
from beitv2_mm.datasets.reading import read_image, read_labels

NAME = 'ADEChallengeData2016'
URL = f'http://data.csail.mit.edu/places/ADEchallenge/{NAME}.zip'
COUNTS = {'training': 20210, 'validation': 2000}
NUM_CLASSES = 150
MAX_BYTES = 4 << 30  # unpacked; the official archive has about 1 GiB
MAX_MEMBERS = 100_000  # the official archive has about 44,500
SHOWN = 10
# A RuntimeError means that the archive is encrypted, or packed by a method that Python lacks.
UNZIP_ERRORS = (
    zipfile.BadZipFile,
    EOFError,
    RuntimeError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
)


class Pair(NamedTuple):
    image: Path
    mask: Path


def unpack(archive: str | Path, out: str | Path) -> Path:
    """Unpacks the official zip below ``out``, whole or not at all, and returns the data's folder.

    Raises:
        FileNotFoundError: there is no such archive.
        ValueError: no zip, not ADE20K, too large, or with a member that points elsewhere.
        FileExistsError: the folder exists already.
    """
    archive, out = Path(archive).expanduser(), Path(out).expanduser()
    target = out / NAME
    if target.exists():
        raise FileExistsError(f'{target} is there already: remove it, or leave --zip out.')
    if not archive.is_file():
        raise FileNotFoundError(f'There is no archive {archive}; download it from {URL}')
    out.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f'.{NAME}.', dir=out))
    try:
        with zipfile.ZipFile(archive) as content:
            members = content.infolist()
            _check_members(archive, members)
            for member in progress(members, 'unpack '):
                content.extract(member, temporary)
        os.replace(temporary / NAME, target)
    except UNZIP_ERRORS as error:
        raise ValueError(f'{archive} is damaged, or no zip: {error}') from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _check_members(archive: Path, members: list[zipfile.ZipInfo]) -> None:
    for member in members:
        path = PurePosixPath(member.filename)
        outside = path.parts[:1] != (NAME,) or '..' in path.parts or '\\' in member.filename
        if outside or stat.S_ISLNK(member.external_attr >> 16):
            raise ValueError(
                f'{archive} holds {member.filename!r}; ADE20K has only files in {NAME}/, no links.'
            )
    size = sum(member.file_size for member in members)
    if not members or size > MAX_BYTES or len(members) > MAX_MEMBERS:
        raise ValueError(
            f'{archive} would unpack to {size} bytes in {len(members)} files; ADE20K has about '
            '1 GiB in 44,500.'
        )


def find_pairs(root: Path, split: str, count: int | None) -> list[Pair]:
    """Images and masks of a split.

    Raises:
        FileNotFoundError: a folder, or the mask of an image, is missing.
        ValueError: masks without image, or another number of images than ``count``.
    """
    folders = root / 'images' / split, root / 'annotations' / split
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f'There is no folder {folder}; it is part of the archive {URL}')
    images = {path.stem: path for path in sorted(folders[0].glob('*.jpg'))}
    masks = {path.stem: path for path in sorted(folders[1].glob('*.png'))}
    lonely = sorted(images.keys() ^ masks.keys())
    if lonely:
        kind, path = (
            ('mask', images[lonely[0]]) if lonely[0] in images else ('image', masks[lonely[0]])
        )
        raise FileNotFoundError(
            f'{len(lonely)} files of {split} have no counterpart: there is no {kind} for {path}.'
        )
    if count is not None and len(images) != count:
        raise ValueError(f'{folders[0]} has {len(images)} images; ADE20K has {count}.')
    return [Pair(images[stem], masks[stem]) for stem in images]


def check_pair(pair: Pair) -> str | None:
    """A description of what is wrong with an image or its mask; None if nothing is."""
    try:
        image, mask = read_image(pair.image), read_labels(pair.mask)
    except ValueError as error:
        return str(error)
    if mask.shape != image.shape[:2]:
        return (
            f'{pair.mask} is {mask.shape[1]} x {mask.shape[0]}, its image {image.shape[1]} x '
            f'{image.shape[0]} (width x height)'
        )
    if mask.max(initial=0) > NUM_CLASSES:
        return f'{pair.mask} has label {mask.max()}; expected 0 to {NUM_CLASSES}'
    return None


def verify(root: str | Path, complete: bool = True, workers: int | None = None) -> None:
    """Checks the folder layout, counts, sizes and labels of all masks.

    Args:
        complete: require 20210 and 2000 images; False accepts a part of the data.

    Raises:
        FileNotFoundError, ValueError: files are missing or wrong; the message names them.
    """
    root = Path(root).expanduser()
    for split, count in COUNTS.items():
        pairs = find_pairs(root, split, count if complete else None)
        with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
            checked = progress(pool.map(check_pair, pairs), f'{split}: verify ', len(pairs))
            problems = [problem for problem in checked if problem]
        if problems:
            more = f'\n... and {len(problems) - SHOWN} more' if len(problems) > SHOWN else ''
            shown = '\n'.join(problems[:SHOWN])
            raise ValueError(
                f'{len(problems)} of {len(pairs)} {split} pairs are wrong:\n{shown}{more}'
            )
        print_log(f'{split}: {len(pairs)} images and masks are in order', logger='current')
