"""A folder of images -> a pack, one file that the data set reads instead.

pack('photos', 'photos.tar')
ImageFolder('photos.tar')   # the samples of ImageFolder('photos'), bit for bit
"""

import io
import os
import tarfile
import zlib
from collections.abc import Callable, Iterable
from os import PathLike
from pathlib import Path

from beitv2_mm.checkpoint.atomic import atomic
from beitv2_mm.datasets.image_folder import ImageFolder
from beitv2_mm.datasets.packed import INDEX_NAME, SUFFIX, make_index, open_pack
from beitv2_mm.datasets.reading import MAX_BYTES, UnreadableImageError, read_bytes, read_image

Faults = dict[str, UnreadableImageError]  # name -> why
Progress = Callable[[list[str]], Iterable[str]]  # iterates over the names


def pack(
    source: str | PathLike,
    out: str | PathLike,
    force: bool = False,
    progress: Progress = iter,
) -> Faults:
    """Writes the files of all images unchanged; the same folder gives the same bytes.

    ``out`` appears when it is complete and on the disk; until then its folder has a hidden file.

    Args:
        source: a folder or a pack, whose images `ImageFolder` lists.
        out: a file that ends with .tar.
        force: replace ``out`` if it exists.

    Returns:
        Files that were left out, because they vanished, cannot be read or are too large.

    Raises:
        ValueError: ``out`` has another suffix, or there are too many images for one pack.
        FileExistsError: ``out`` exists.
        OSError: there is no image, or ``out`` cannot be written.
    """
    out = Path(out)
    if out.suffix != SUFFIX:
        raise ValueError(f'A pack is a file *{SUFFIX}, but {out} was given.')
    if out.exists() and not force:
        raise FileExistsError(f'{out} exists: give --force to replace it, or another name.')
    data = ImageFolder(os.fspath(source), lazy_init=True)
    if data.ann_file:
        raise ValueError(
            f'{source} is a list: pack the folder of its images, and use the list with the pack.'
        )
    files = data.files()
    left_out: Faults = {}
    rows: dict[bytes, tuple[int, int, int]] = {}
    with atomic(out) as temporary, temporary.open('wb') as target:
        with tarfile.open(fileobj=target, mode='w', format=tarfile.PAX_FORMAT) as tar:
            for name in progress(files):
                try:
                    content = read_bytes(data.path(name))
                except UnreadableImageError as error:
                    left_out[name] = error
                    continue
                start = _add(tar, name, content)
                rows[os.fsencode(name)] = (start, len(content), zlib.crc32(content))
            if not rows:
                raise OSError(f'Not one of {len(files)} images in {source} could be packed.')
            _add(tar, INDEX_NAME, _index(rows, data.folders()))
        target.flush()
        os.fsync(target.fileno())  # before it gets its name: no half file after a power failure
    open_pack.cache_clear()  # it may hold the replaced file
    return left_out


def _index(rows: dict[bytes, tuple[int, int, int]], folders: list[str]) -> bytes:
    """The index of the images, and of folders without images, which are classes all the same."""
    with_images = {name.split(b'/', 1)[0] for name in rows if b'/' in name}
    empty = set(map(os.fsencode, folders)) - with_images
    rows = rows | {folder + b'/': (0, 0, 0) for folder in empty}
    order = sorted(rows)
    index = make_index(order, [rows[name] for name in order])
    if len(index) > MAX_BYTES:
        raise ValueError(
            f'The index of {len(rows)} images would have {len(index)} bytes, more than the limit '
            f'of {MAX_BYTES}: make several packs of the folder.'
        )
    return index


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Appends a member; returns where its content begins."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
    tar.members = []  # type: ignore[attr-defined]  # they would take a kilobyte each
    assert tar.fileobj is not None
    return tar.fileobj.tell() - -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def check(source: str | PathLike, progress: Progress = iter) -> Faults:
    """Reads every image of a pack, or folder, by the rules of docs/data_faults.md.

    Returns:
        Images that cannot be read, which training would skip.

    Raises:
        OSError, PackError: see `ImageFolder.files`.
    """
    data = ImageFolder(os.fspath(source), lazy_init=True)
    faults: Faults = {}
    for name in progress(data.files()):
        try:
            read_image(data.path(name))
        except UnreadableImageError as error:
            faults[name] = error
    return faults
