"""Writes files completely or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path


@contextmanager
def atomic(path: str | PathLike[str]) -> Iterator[Path]:
    """A hidden file beside ``path`` to write to; it replaces ``path`` unless an error occurs.

    After an interruption, even a kill, ``path`` is the file that was there before.

    Raises:
        OSError: the folder does not exist or cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    temporary.touch()
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomic(path: str | PathLike[str], content: bytes) -> None:
    """Writes bytes and flushes them before renaming, so that a power failure does no harm."""
    with atomic(path) as temporary, temporary.open('wb') as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
