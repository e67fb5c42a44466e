"""A survey of a folder of images and masks: pairs, classes, and the split for validation."""

import logging
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmengine.logging import print_log
from mmengine.utils import track_iter_progress

from beitv2_mm.datasets.image_folder import EXTENSIONS
from beitv2_mm.datasets.listing import walk
from beitv2_mm.datasets.reading import UnreadableImageError, read_image, read_labels
from beitv2_mm.datasets.sampling import sample
from beitv2_mm.jobs.survey import FolderError, held_out, median_side
from beitv2_mm.segmentation.load_mask import IGNORE

SUBSETS = {'train': ('train', 'training'), 'val': ('val', 'validation')}
CLASSES = 'classes.txt'
EXPECTED = (
    'Expected are FOLDER/images and FOLDER/masks with the same file names, masks as PNGs with a '
    f'label from 0 for each pixel and {IGNORE} where there is none.'
)


@dataclass(frozen=True)
class MaskSurvey:
    """What is known of a folder; names are relative to images/ and have no extension."""

    folder: Path
    classes: tuple[str, ...]
    train: tuple[str, ...]
    val: tuple[str, ...]
    short_side: int  # pixels, the median of a sample

    @property
    def num_images(self) -> int:
        return len(self.train) + len(self.val)

    def describe(self) -> str:
        """The survey in a line."""
        names = ', '.join(self.classes[:5]) + (', ...' if self.classes[5:] else '')
        return (
            f'{self.num_images} images with masks, {len(self.classes)} classes ({names}), '
            f'{self.short_side} px on the short side'
        )


def survey_masks(folder: Path) -> MaskSurvey:
    """Pairs images with masks and reads all labels.

    Class names are the lines of ``FOLDER/classes.txt``, or 'class 0', 'class 1' and so on. A split
    into ``images/train`` and ``images/val`` is kept; otherwise a tenth, drawn at random, validates.

    Raises:
        FolderError: folders, masks or classes are missing, masks have a label that no class has, or
            no image can be read.
    """
    images, masks = folder / 'images', folder / 'masks'
    for part in (images, masks):
        if not part.is_dir():
            raise FolderError(f'There is no folder {part.absolute()}. {EXPECTED}')
    files = {
        os.path.splitext(name)[0]: images / name
        for name in sorted(walk(str(images), []))
        if name.lower().endswith(EXTENSIONS) and '/.' not in f'/{name}'
    }
    if len(files) < 2:
        raise FolderError(f'{images} holds {len(files)} images. {EXPECTED}')
    missing = [name for name in files if not (masks / f'{name}.png').is_file()]
    if missing:
        raise FolderError(
            f'{len(missing)} of {len(files)} images have no mask, e.g. {files[missing[0]]}: '
            f'{masks / missing[0]}.png was expected. {EXPECTED}'
        )
    classes = _classes(folder, {name: masks / f'{name}.png' for name in files})
    train, val = _split(list(files))
    val = _readable(val, files, masks)
    side = median_side([str(path) for path in sample(list(files.values()))], str(images))
    return MaskSurvey(folder, classes, train, val, side)


def _split(names: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    first = {name: name.split('/')[0] for name in names}
    parts = [tuple(n for n in names if first[n] in words) for words in SUBSETS.values()]
    if all(parts):
        return parts[0], parts[1]
    val = held_out(names)
    return tuple(n for n in names if n not in val), tuple(sorted(val))


def _readable(names: tuple[str, ...], files: dict[str, Path], masks: Path) -> tuple[str, ...]:
    """The names whose image and mask can be read; a training skips the others, but a validation
    would stop at them."""
    readable = []
    for name in track_iter_progress(list(names)):
        try:
            read_image(files[name])
            read_labels(str(masks / f'{name}.png'))
        except UnreadableImageError as error:
            print_log(f'{error}: left out of the validation.', 'current', logging.WARNING)
        else:
            readable.append(name)
    if not readable:
        raise FolderError('Not one of the images to validate on can be read.')
    return tuple(readable)


def _classes(folder: Path, masks: dict[str, Path]) -> tuple[str, ...]:
    """The names of the classes, whose labels all masks are checked for."""
    seen: Counter[int] = Counter()
    example: dict[int, Path] = {}
    for path in track_iter_progress(list(masks.values())):
        try:
            labels = np.unique(read_labels(str(path)))
        except UnreadableImageError:  # the training skips it
            continue
        except ValueError as error:  # it names the file
            raise FolderError(str(error)) from error
        for label in labels.tolist():
            seen[label] += 1
            example.setdefault(label, path)
    labels = sorted(set(seen) - {IGNORE})
    listed = folder / CLASSES
    if listed.is_file():
        lines = [line.strip() for line in listed.read_text(encoding='utf-8').splitlines()]
        names = [line for line in lines if line]
        wrong = [label for label in labels if not 0 <= label < len(names)]
        if wrong:
            raise FolderError(
                f'The mask {example[wrong[-1]]} has the label {wrong[-1]}, but {listed} names '
                f'{len(names)} classes, with labels 0 to {len(names) - 1}. Add names, or mend '
                f'{seen[wrong[-1]]} masks.'
            )
        return tuple(names)
    if len(labels) < 2:
        binary = labels == [0] and IGNORE in seen
        hint = f' Is {IGNORE} the object? Write 1 instead.' if binary else ''
        raise FolderError(
            f'The masks hold {len(labels)} classes (labels {labels}, and {IGNORE} for none): two '
            f'are the least.{hint} {EXPECTED}'
        )
    if labels[0] < 0 or labels[-1] >= 2 * len(labels):
        raise FolderError(
            f'The masks hold {len(labels)} labels up to {labels[-1]}, e.g. in '
            f'{example[labels[-1]]}: {labels[:8]}. Labels count from 0 without large gaps: '
            f'renumber them, or name every class in {listed}.'
        )
    return tuple(f'class {i}' for i in range(labels[-1] + 1))
