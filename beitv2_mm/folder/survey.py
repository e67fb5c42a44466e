"""What lies in a folder of images: how many, of what size, of which classes."""

import statistics
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from beitv2_mm.apis.tokenize import find_images

SAMPLE = 64  # images whose size is looked at


class FolderError(ValueError):
    """A folder that cannot be trained on; the message says what was expected."""


@dataclass(frozen=True)
class Survey:
    """What was found."""

    folder: Path
    num_images: int
    short_side: int  # pixels, the median of a sample
    classes: dict[str, int] = field(default_factory=dict)  # name -> number of images


def survey(folder: Path) -> Survey:
    """Count the images below a folder and look at some of them.

    Raises:
        FolderError: no such folder, no image in it, or not one of a sample can be read.
    """
    if not folder.is_dir():
        raise FolderError(f'There is no folder {folder.absolute()}.')
    try:
        files = find_images([folder])
    except FileNotFoundError as error:
        raise FolderError(str(error)) from error
    sides, reasons = [], []
    for file in files[:: -(-len(files) // SAMPLE)]:
        try:
            with Image.open(file) as image:
                sides.append(min(image.size))
        except OSError as error:
            reasons.append(f'{file}: {error}')
    if not sides:
        raise FolderError(
            f'Not one of {len(reasons)} images in {folder} can be read, e.g. {reasons[0]}'
        )
    return Survey(folder, len(files), round(statistics.median(sides)), _classes(folder, files))


def _classes(folder: Path, files: list[str]) -> dict[str, int]:
    places = [Path(file).relative_to(folder).parts for file in files]
    return dict(sorted(Counter(parts[0] for parts in places if len(parts) > 1).items()))


def require_classes(found: Survey) -> None:
    """Check that images can be told apart by the folders that they are in.

    Raises:
        FolderError: fewer than two class folders, images outside of them, or a class of one image.
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
