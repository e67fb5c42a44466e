"""A survey of a folder of images: their number, size, kind and classes."""

import dataclasses
import random
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from beitv2_mm.datasets import ImageFolder
from beitv2_mm.datasets.bands import stored_values
from beitv2_mm.datasets.image_folder import EXTENSIONS
from beitv2_mm.datasets.packed import PackError
from beitv2_mm.datasets.pixel_rules import BAND_EXTENSIONS, COLOURS
from beitv2_mm.datasets.reading import UnreadableImageError, open_image
from beitv2_mm.datasets.sampling import channel_statistics, count_channels, sample


class FolderError(ValueError):
    """A folder that cannot be trained on; the message says what was expected."""


@dataclass(frozen=True)
class Survey:
    """What is known of the images of a folder."""

    folder: Path
    num_images: int
    short_side: int  # pixels, the median of a sample
    classes: dict[str, int] = field(default_factory=dict)  # name -> number of images
    channels: int = COLOURS
    white: float | None = None  # the white level, where files have 16 bits
    mean: tuple[float, ...] = ()  # of each channel, 0 to 1; only where they are not colours
    std: tuple[float, ...] = ()

    def describe(self) -> str:
        """The survey in a line."""
        classes = f', {len(self.classes)} folders' if self.classes else ''
        kind = '' if self.channels == COLOURS else f', {self.channels} channels'
        white = '' if self.white is None else f', white is {self.white:g}'
        return (
            f'{self.num_images} images{classes}, {self.short_side} px on the short side'
            f'{kind}{white}'
        )


def survey(folder: Path, with_label: bool = False) -> Survey:
    """Counts the images below a folder, or in its pack or list, and looks at some of them.

    Args:
        with_label: whether a list has labels.

    Raises:
        FolderError: there is no such folder or no image in it, no image of a sample can be read, or
            the images differ in their number of channels.
    """
    if not folder.exists():
        raise FolderError(f'There is no folder {folder.absolute()}, and no pack of that name.')
    try:
        data, files = _listed(folder, with_label)
        found = Survey(folder, len(files), 0, _classes(data, files), data.channels)
        return _look(data, files, found)
    except FolderError:
        raise
    except (OSError, PackError, ValueError) as error:
        raise FolderError(str(error)) from error


def _listed(folder: Path, with_label: bool) -> tuple[ImageFolder, list[str]]:
    """The data set, not yet read, and its files; arrays count only where there are no images."""
    settings: dict[str, Any] = dict(data_root=str(folder), with_label=with_label, lazy_init=True)
    data = ImageFolder(**settings)
    try:
        files = data.files()
    except FileNotFoundError:
        if data.ann_file:
            raise
        data = ImageFolder(extensions=EXTENSIONS + BAND_EXTENSIONS, **settings)
        files = data.files()
    counts = count_channels([data.path(file) for file in sample(files)])
    if len(counts) > 1:
        kinds = ', '.join(f'{count} of {number}' for number, count in counts.most_common())
        raise FolderError(
            f'{folder} has images of several numbers of channels (of {sum(counts.values())} '
            f'sampled: {kinds}). One training takes one: sort them into folders.'
        )
    channels = next(iter(counts), COLOURS)
    if channels != COLOURS:
        data = ImageFolder(channels=channels, **settings)
        files = data.files()
    elif any(file.lower().endswith(BAND_EXTENSIONS) for file in files):
        raise FolderError(
            f'{folder} has arrays of colours, e.g. {files[0]}: save them as PNG files.'
        )
    return data, files


def _look(data: ImageFolder, files: list[str], found: Survey) -> Survey:
    """The survey with sizes and values of a sample."""
    paths = [data.path(file) for file in sample(files)]
    side = median_side(paths, str(found.folder), data.channels)
    data.settle_pixels(files, data.path, str(found.folder))
    found = dataclasses.replace(found, short_side=side, white=data.white)
    if data.channels == COLOURS:
        return found
    measured = channel_statistics(paths, data.channels, data.white)
    mean, std = (tuple(round(value, 4) for value in values) for values in measured)
    return dataclasses.replace(found, mean=mean, std=std)


def median_side(paths: Sequence[str], folder: str, channels: int = COLOURS) -> int:
    """The median of the short sides of some images, in pixels.

    Raises:
        FolderError: not one can be read.
    """
    sides, reasons = [], []
    for path in paths:
        try:
            if channels == COLOURS:
                sides.append(min(open_image(path).size))
            else:
                sides.append(min(stored_values(path, channels)[0].shape[:2]))
        except UnreadableImageError as error:
            reasons.append(str(error))
    if not sides:
        raise FolderError(
            f'Not one of {len(reasons)} images in {folder} can be read, e.g. {reasons[0]}'
        )
    return round(statistics.median(sides))


def held_out(names: Sequence[str]) -> set[str]:
    """The tenth of some images, 500 at most, on which a segmentor or detector is validated."""
    return set(random.Random(0).sample(names, max(1, min(500, len(names) // 10))))


def _classes(data: ImageFolder, files: list[str]) -> dict[str, int]:
    """Classes and their numbers of images, of a folder or of a list with labels."""
    if data.ann_file:
        return data.labels() if data.with_label else {}
    return dict(sorted(Counter(file.split('/')[0] for file in files if '/' in file).items()))


def require_classes(found: Survey) -> None:
    """Checks that every image lies in a class folder.

    Raises:
        FolderError: there are fewer than two class folders, images outside of them, or a class with
            a single image.
    """
    expected = 'Expected is one folder of images for each class: FOLDER/cat/1.jpg, FOLDER/dog/2.jpg'
    if len(found.classes) < 2:
        names = ', '.join(found.classes) or 'none'
        raise FolderError(
            f'{found.folder} has {len(found.classes)} folders of images ({names}), and two classes '
            f'are the least. {expected}.'
        )
    outside = found.num_images - sum(found.classes.values())
    if outside:
        raise FolderError(
            f'{outside} images lie in {found.folder} itself, outside of the class folders: move '
            f'them. {expected}.'
        )
    few = [name for name, count in found.classes.items() if count < 2]
    if few:
        raise FolderError(
            f'The class {few[0]} has one image; each needs two, one to train on and one to '
            'validate on. Add images, or remove the folder.'
        )
