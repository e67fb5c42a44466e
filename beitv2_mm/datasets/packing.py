"""A folder of images -> one pack that the data set reads in its place.

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
Progress = Callable[[list[str]], Iterable[str]]  # hands the names on, one by one


def pack(
    source: str | PathLike,
    out: str | PathLike,
    force: bool = False,
    progress: Progress = iter,
) -> Faults:
    """Writes the files of all images as they are; the same folder gives the same bytes.

    ``out`` appears when it is complete and on the disk; until then the folder that it is in holds
    a hidden file.

    Args:
        source: what `ImageFolder` lists: a folder, or a pack.
        out: a file that ends with .tar.
        force: replace ``out`` if it exists.

    Returns:
        Files without content to pack (vanished, no permission, too large): they are left out.

    Raises:
        ValueError: ``out`` is not named as a pack, or there are too many images for one.
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
        raise ValueError(f'{source} is a list: pack the folder of its images, the list goes on.')
    files = data.files()
    left_out: Faults = {}
    names: dict[bytes, tuple[int, int, int]] = {}
    with atomic(out) as temporary, temporary.open('wb') as target:
        with tarfile.open(fileobj=target, mode='w', format=tarfile.PAX_FORMAT) as tar:
            for name in progress(files):
                try:
                    content = read_bytes(data.path(name))
                except UnreadableImageError as error:
                    left_out[name] = error
                    continue
                start = _add(tar, name, content)
                names[os.fsencode(name)] = (start, len(content), zlib.crc32(content))
            if not names:
                raise OSError(f'Not one of {len(files)} images in {source} could be packed.')
            with_images = {name.split(b'/', 1)[0] for name in names if b'/' in name}
            for folder in map(os.fsencode, data.folders()):
                if folder not in with_images:
                    names[folder + b'/'] = (0, 0, 0)  # a class, though it has no image
            order = sorted(names)
            index = make_index(order, [names[name] for name in order])
            if len(index) > MAX_BYTES:
                raise ValueError(
                    f'The index of {len(names)} images would be {len(index)} bytes, at most '
                    f'{MAX_BYTES} are read: make several packs of the folder.'
                )
            _add(tar, INDEX_NAME, index)
        target.flush()
        os.fsync(target.fileno())  # before the name: a power failure leaves no half file
    open_pack.cache_clear()  # of the file that was there
    return left_out


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Appends a member; returns where its content begins."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
    tar.members = []  # type: ignore[attr-defined]  # or it keeps a kilobyte of each
    assert tar.fileobj is not None
    return tar.fileobj.tell() - -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def check(source: str | PathLike, progress: Progress = iter) -> Faults:
    """Reads every image of a pack, or folder, by the rules of docs/data_faults.md.

    Returns:
        Images that cannot be read; training skips them.

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
