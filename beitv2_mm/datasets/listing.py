"""What lies below a local folder: links are followed, those that lead nowhere or in a circle too
far."""

import os
from collections.abc import Iterator

Key = tuple[int, int]  # device and number of a folder


def walk(folder: str, circles: list[str]) -> Iterator[str]:
    """Names of all files below, relative to the folder, with slashes.

    A link that leads nowhere, or to itself, counts as a file, which cannot be read then.

    Args:
        circles: names of links to a folder that they are in are added to it; they are not followed.
    """
    yield from _walk(folder, '', _above(folder), circles)


def folders(folder: str) -> list[str]:
    """Names of the folders directly below, without links to a folder that they are in."""
    above = _above(folder)
    with os.scandir(folder) as entries:
        return [e.name for e in entries if is_folder(e) and _key(e.path) not in above]


def _above(folder: str) -> frozenset[Key]:
    """A folder and those that it is in."""
    place = os.path.realpath(folder)
    above = {_key(place)}
    while place != os.path.dirname(place):
        place = os.path.dirname(place)
        above.add(_key(place))
    return frozenset(above)


def _key(folder: str) -> Key:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _walk(folder: str, prefix: str, above: frozenset[Key], circles: list[str]) -> Iterator[str]:
    with os.scandir(folder) as entries:
        listed = list(entries)
    for entry in listed:
        name = prefix + entry.name
        if not is_folder(entry):
            if entry.is_symlink() or entry.is_file():
                yield name
            continue
        key = _key(entry.path)
        if key in above:
            circles.append(name)
        else:
            yield from _walk(entry.path, f'{name}/', above | {key}, circles)


def is_folder(entry: os.DirEntry) -> bool:
    """Whether an entry is, or leads to, a folder; a link to itself does not."""
    try:
        return entry.is_dir()
    except OSError:
        return False
