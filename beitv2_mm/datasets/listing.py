"""Files and folders below a local folder; links are followed, unless they lead in a circle."""

import os
from collections.abc import Iterator
from typing import NoReturn


def walk(folder: str, circles: list[str]) -> Iterator[str]:
    """Names of all files below, relative to the folder, with slashes.

    A link that leads nowhere, or to itself, is listed as a file, and reading it will fail.

    Args:
        circles: receives the names of links to a folder that contains them; they are not followed.

    Raises:
        OSError: a folder cannot be listed.
    """

    def fail(error: OSError) -> NoReturn:
        raise error

    for place, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        prefix = '' if place == folder else os.path.relpath(place, folder) + '/'
        looped = [name for name in folders if leads_in_circle(os.path.join(place, name))]
        circles += [prefix + name for name in looped]
        folders[:] = [name for name in folders if name not in looped]
        yield from (prefix + name for name in files)


def folders(folder: str) -> list[str]:
    """Names of the folders directly below, without links to a folder that contains them."""
    with os.scandir(folder) as entries:
        found = [entry.path for entry in entries if os.path.isdir(entry.path)]
    return [os.path.basename(path) for path in found if not leads_in_circle(path)]


def leads_in_circle(path: str) -> bool:
    """Whether a path is a link to a folder that contains it, through whatever links."""
    if not os.path.islink(path):
        return False
    target, above = os.path.realpath(path), os.path.dirname(os.path.abspath(path))
    while True:
        if f'{os.path.realpath(above)}/'.startswith(f'{target.rstrip("/")}/'):
            return True
        if above == os.path.dirname(above):
            return False
        above = os.path.dirname(above)
