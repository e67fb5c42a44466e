"""Captions of composites: what item lies on a picture of what, from how they were made.

``out/images/{train,val,test}/<index>.png`` and ``out/captions/{train,val,test}.csv`` with the
columns file, caption and group. Of the 100 combinations of ten items and ten kinds of pictures, 20
are never in 'train': their group is 'held_out', that of the others 'seen'.
"""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from beitv2_mm.checkpoint.atomic import write_atomic

PICTURES = (
    'airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck',
)  # fmt: skip


def caption_of(item: str, picture: str) -> str:
    """What a composite shows.

    >>> caption_of('ankle boot', 'airplane')
    'an ankle boot on a picture of an airplane'
    """
    return f'{_with_article(item)} on a picture of {_with_article(picture)}'


def _with_article(noun: str) -> str:
    return f'{"an" if noun[0] in "aeiou" else "a"} {noun}'


def is_held_out(item: int, picture: str) -> bool:
    """Whether a combination is kept from training: two pictures for each item, and two items for
    each picture.

    Args:
        item: the label of the item, from 0.
    """
    return (PICTURES.index(picture) - item) % 5 == 0


def write_captions(path: Path, rows: Iterable[tuple[str, str, str]]) -> None:
    """Writes a CSV of file, caption and group."""
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(('file', 'caption', 'group'))
    table.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text.getvalue().encode())
