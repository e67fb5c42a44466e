"""Packs: many images in one tar file, read in any order through an index at its end.

    fileio.get('pack://images.tar/cat/1.jpg')   # the bytes of the file cat/1.jpg

Any tar program lists and unpacks a pack. Names are only looked up in the index, never opened as
paths. Reads do not use a memory map, so an error of a network file system is an OSError, after
which the read is tried again. Forked workers share the open file and the index.

Python's tarfile would read the headers of all members first, and every worker would keep an object
for each. webdataset reads members one after the other and cuts their names at the first dot, so
sampler, order and names would not be those of the folder.
"""

import functools
import os
import re
import zlib
from bisect import bisect_left
from collections.abc import Iterator

import numpy as np
from mmengine import fileio

from beitv2_mm.datasets.reading import MAX_BYTES, Reason, UnreadableImageError

SUFFIX = '.tar'
PREFIX = 'pack://'
INDEX_NAME = '.index'  # the last member: names, a NUL after each, then TABLE and TRAILER
TABLE = np.dtype([('start', '<i8'), ('size', '<i8'), ('crc', '<u4')])  # a row for each name
TRAILER = b'beitv2_mm pack 1: %20d names, %20d bytes, crc %08x\n'
TRAILER_SIZE = len(TRAILER % (0, 0, 0))
TRAILER_WORDS = re.compile(rb'beitv2_mm pack 1: +(\d+) names, +(\d+) bytes, crc ([0-9a-f]{8})\n')
TAIL = 12 << 10  # zeros at the end of a tar file: up to 3 blocks and a record of 10 KiB


class PackError(ValueError):
    """A file that is not a pack, or is damaged; the message names it."""


def make_index(names: list[bytes], rows: list[tuple[int, int, int]]) -> bytes:
    """The content of the index of sorted names; folders without images end with a slash."""
    content = b''.join(name + b'\0' for name in names)
    size = len(content)
    content += np.array(rows, TABLE).tobytes()
    return content + TRAILER % (len(names), size, zlib.crc32(content))


class Pack:
    """An open pack.

    Raises:
        FileNotFoundError: there is no such file.
        PackError: it is not a pack, or is damaged.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._file = open(path, 'rb')  # noqa: SIM115  open until the process ends
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f'There is no pack {path}. Check data_root in the config, or '
                '--cfg-options train_dataloader.dataset.data_root=FILE.tar.'
            ) from error
        length = self._file.seek(0, os.SEEK_END)
        tail = self._at(max(0, length - TAIL - TRAILER_SIZE), min(length, TAIL + TRAILER_SIZE))
        end = length - len(tail) + len(tail.rstrip(b'\0')) - TRAILER_SIZE
        trailer = TRAILER_WORDS.fullmatch(tail.rstrip(b'\0')[-TRAILER_SIZE:])
        if not trailer:
            raise self._error('it does not end with the index of a pack')
        count, size = int(trailer[1]), int(trailer[2])
        start = end - size - count * TABLE.itemsize
        if start < 0 or end - start > MAX_BYTES:
            raise self._error(f'its index claims {end - start} bytes, of {length}')
        content = self._at(start, end - start)
        if zlib.crc32(content) != int(trailer[3], 16):
            raise self._error('the checksum of its index is wrong')
        # Arrays and one string instead of lists: forked workers share their memory.
        self._index = content
        self._ends = np.flatnonzero(np.frombuffer(content, np.uint8, size) == 0)
        self._table = np.frombuffer(content, TABLE, count, offset=size)
        starts, sizes = self._table['start'], self._table['size']
        if b'://' in content[:size]:
            raise self._error('it has names that would be addresses')
        if len(self._ends) != count or (count and self._ends[-1] != size - 1):
            raise self._error(f'its index has {len(self._ends)} names instead of {count}')
        if (starts < 0).any() or (sizes < 0).any() or (sizes > start - starts).any():
            raise self._error('images lie outside of the file')

    def _error(self, why: str) -> PackError:
        return PackError(
            f'{self.path} is no pack of images, or was cut or damaged: {why}. '
            'Expected a file that tools/pack_images.py wrote: copy it again, or pack the folder of '
            'images again.'
        )

    def _at(self, start: int, size: int) -> bytes:
        """The bytes at an offset; processes that share the open file do not disturb each other."""
        content = b''
        while len(content) < size:  # a network file system may give less than was asked for
            part = os.pread(self._file.fileno(), size - len(content), start + len(content))
            if not part:
                raise OSError(f'{self.path}: {len(content)} of {size} bytes were read at {start}')
            content = content + part if content else part
        return content

    def _name(self, row: int) -> bytes:
        return self._index[int(self._ends[row - 1]) + 1 if row else 0 : int(self._ends[row])]

    def names(self) -> Iterator[str]:
        """All names, sorted; folders without images end with a slash."""
        return (os.fsdecode(self._name(row)) for row in range(len(self._ends)))

    def read(self, name: str) -> bytes:
        """The content of an image file.

        Raises:
            FileNotFoundError: the pack has no such name.
            UnreadableImageError: the image is too large, or its checksum is wrong.
            OSError: an error of the file system.
        """
        key = os.fsencode(name)
        row = bisect_left(range(len(self._ends)), key, key=self._name)
        if row == len(self._ends) or self._name(row) != key:
            raise FileNotFoundError(f'{self.path} has no image {name}')
        start, size, crc = map(int, self._table[row])
        if size > MAX_BYTES:
            raise self._unreadable(name, 'too large', f'{size} bytes')
        content = self._at(start, size)
        if zlib.crc32(content) != crc:
            raise self._unreadable(name, 'damaged', 'its checksum in the pack is wrong')
        return content

    def _unreadable(self, name: str, reason: Reason, detail: str) -> UnreadableImageError:
        return UnreadableImageError(
            f'Cannot read {PREFIX}{self.path}/{name}: {reason} ({detail})', reason
        )


open_pack = functools.cache(Pack)  # once in a process, and for its forked workers
_is_folder = functools.cache(os.path.isdir)


def pack_uri(path: str) -> str:
    """``pack://images.tar`` for ``images.tar``; other paths are returned as they are."""
    is_pack = path.endswith(SUFFIX) and '://' not in path and not os.path.isdir(path)
    return PREFIX + path if is_pack else path


@fileio.register_backend('pack', prefixes='pack', force=True)
class PackBackend(fileio.BaseStorageBackend):
    """Reads ``pack://PACK.tar/NAME``, for everything that reads through mmengine's fileio."""

    def get(self, filepath: str | os.PathLike) -> bytes:
        """See `Pack.read`."""
        pack, name = _split(filepath)
        return pack.read(name)

    def get_text(self, filepath: str | os.PathLike, encoding: str = 'utf-8') -> str:
        """See `Pack.read`."""
        return self.get(filepath).decode(encoding)

    def join_path(self, filepath: str | os.PathLike, *names: str) -> str:
        """Joins with single slashes."""
        return '/'.join([os.fspath(filepath), *(name for name in names if name)])

    def list_dir_or_file(
        self,
        dir_path: str | os.PathLike,
        list_dir: bool = True,
        list_file: bool = True,
        recursive: bool = False,
    ) -> Iterator[str]:
        """Names of files, and of folders directly below, relative to ``dir_path``."""
        pack, folder = _split(dir_path)
        above, seen = folder and f'{folder.rstrip("/")}/', set()
        for name in pack.names():
            if not name.startswith(above):
                continue
            first, slash, rest = name.removeprefix(above).partition('/')
            if list_dir and slash and first not in seen:
                seen.add(first)
                yield first
            if list_file and not name.endswith('/') and (recursive or not slash):
                yield first + slash + rest


def _split(uri: str | os.PathLike) -> tuple[Pack, str]:
    """The pack (the first part that ends with .tar and is not a folder) and the name in it."""
    path = os.path.join(os.getcwd(), os.fspath(uri).removeprefix(PREFIX))
    for found in re.finditer(rf'{re.escape(SUFFIX)}(?=/|$)', path):
        if not _is_folder(path[: found.end()]):
            return open_pack(path[: found.end()]), path[found.end() + 1 :]
    raise FileNotFoundError(f'{os.fspath(uri)} names no pack: a file *{SUFFIX} was expected.')
