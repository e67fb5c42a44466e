"""Lists of images instead of a folder: a text or CSV file -> paths and labels.

    cat/1.jpg 0            path,label
    dog/2 (b).jpg 1        cat/1.jpg,cat

A text file has a line for each image, as for mmpretrain's CustomDataset: the path, or the path, a
space and the label. A CSV file (comma, semicolon or tab) has the path in the first column and the
label in the second, or in columns that the first line names. A label is the number of a class, from
0, or its name.
"""

import csv
import io
import logging
import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mmengine import fileio
from mmengine.logging import print_log

TABLES = ('.csv', '.tsv')
SUFFIXES = (*TABLES, '.txt')
PATHS = ('path', 'file', 'filename', 'file_name', 'image', 'img_path', 'image_path', 'img')
LABELS = ('label', 'class', 'gt_label', 'category', 'target', 'class_name')


class Line(NamedTuple):
    """One image of a list."""

    number: int  # of the line in the file, from 1
    path: str
    label: str | None


def is_list(path: str) -> bool:
    """Whether a path is a file with the suffix of a list."""
    return path.lower().endswith(SUFFIXES) and '://' not in path and os.path.isfile(path)


def read_list(path: str, with_label: bool) -> list[Line]:
    """The images of a list; empty lines and, in text, those that begin with # are left out.

    Raises:
        ValueError: it has no image, or a line has no path or, ``with_label``, no label.
    """
    try:
        text = fileio.get_text(path, encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise ValueError(f'{path} is no list of images: it is not UTF-8 text ({error}).') from error
    is_table = path.lower().endswith(TABLES)
    lines = _table(path, text, with_label) if is_table else _text(text, with_label)
    if not lines:
        raise ValueError(f'The list {path} has no image; expected a path in each line.')
    for line in lines:
        if not line.path or (with_label and not line.label):
            raise ValueError(
                f'{path}, line {line.number} has no {"label" if line.path else "path"}: expected '
                f'PATH{"," if is_table else " "}LABEL, or with_label=False for a list without '
                'labels.'
            )
    return lines


def _text(text: str, with_label: bool) -> list[Line]:
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.strip()
        if not words or words.startswith('#'):
            continue
        path, _, label = words.rpartition(' ') if with_label else (words, '', '')
        if with_label and not path:
            path, label = label, ''
        lines.append(Line(number, path.strip(), label or None))
    return lines


def _table(path: str, text: str, with_label: bool) -> list[Line]:
    first = text.split('\n', 1)[0]
    delimiter = max('\t;,', key=first.count)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    path_column, label_column, lines, is_first = 0, 1, [], True
    for row in reader:
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        names = [cell.lower() for cell in cells]
        if is_first and set(names) & set(PATHS):
            path_column = next(i for i, name in enumerate(names) if name in PATHS)
            found = [i for i, name in enumerate(names) if name in LABELS]
            if with_label and not found:
                raise ValueError(
                    f'{path} names its columns {", ".join(cells)}: for labels one of them must be '
                    f'called {", ".join(LABELS)}.'
                )
            label_column = found[0] if found else len(cells)
        else:
            name = cells[path_column] if path_column < len(cells) else ''
            label = cells[label_column] if label_column < len(cells) else ''
            lines.append(Line(reader.line_num, name, label or None))
        is_first = False
    return lines


def check_files(path: str, lines: Iterable[Line], names: Sequence[str], where: str) -> None:
    """Checks that every image exists; each folder is listed once.

    Args:
        names: the path of each line's file.
        where: the folder that paths are relative to, as errors name it.

    Raises:
        FileNotFoundError: the first line without a file, and how many there are.
    """
    listed: dict[str, set[str]] = {}
    missing: list[tuple[Line, str]] = []
    for line, name in zip(lines, names, strict=True):
        folder, _, base = name.rpartition('/')
        if folder not in listed:
            try:
                listed[folder] = set(os.listdir(folder or '/'))
            except OSError:
                listed[folder] = set()
        if base not in listed[folder]:
            missing.append((line, name))
    if missing:
        line, name = missing[0]
        others = f' ({len(missing)} lines have no file)' if len(missing) > 1 else ''
        raise FileNotFoundError(
            f'{path}, line {line.number}: there is no file {name}{others}. Paths are absolute, or '
            f'relative to data_root ({where}): correct the line, or delete it.'
        )


def labels_of(
    path: str, lines: Sequence[Line], classes: Sequence[str] | None
) -> tuple[list[int], Sequence[str]]:
    """The class of each line, and the names of the classes.

    Args:
        classes: their names in the order of the numbers; None to take them from the labels.

    Raises:
        ValueError: a label is not a class; the message names the line.
    """
    texts = [line.label or '' for line in lines]
    numbers = all(text.isdecimal() for text in texts)
    if classes is None:
        if numbers:
            classes = [str(i) for i in range(1 + max(map(int, texts)))]
        else:
            classes = sorted(set(texts))
        print_log(
            f'{path}: {len(classes)} classes, {", ".join(classes[:10])}'
            f'{", ..." if len(classes) > 10 else ""}. If training and validation have separate '
            'lists, give metainfo=dict(classes=...) to both data sets.',
            logger='current',
            level=logging.INFO,
        )
    index = {name: i for i, name in enumerate(classes)}
    by_name = not numbers or all(text in index for text in texts)
    labels = []
    for line, text in zip(lines, texts, strict=True):
        label = index.get(text, -1) if by_name else int(text)
        if not 0 <= label < len(classes):
            raise ValueError(
                f'{path}, line {line.number}: the label {text!r} of {line.path} is no class: '
                f'expected a number from 0 to {len(classes) - 1}, or one of '
                f'{", ".join(classes[:10])}{", ..." if len(classes) > 10 else ""}.'
            )
        labels.append(label)
    return labels, classes
