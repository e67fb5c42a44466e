"""What lies in a folder of images: how many, of what size, of which classes."""

import statistics
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from beitv2_mm.datasets import ImageFolder
from beitv2_mm.datasets.packed import PackError
from beitv2_mm.datasets.reading import UnreadableImageError, open_image

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
    """Count the images below a folder, or in its pack, and look at some of them.

    Raises:
        FolderError: no such folder, no image in it, or not one of a sample can be read.
    """
    if not folder.exists():
        raise FolderError(f'There is no folder {folder.absolute()}, and no pack of that name.')
    data = ImageFolder(str(folder), lazy_init=True)
    try:
        files = data.files()
    except (OSError, PackError) as error:
        raise FolderError(str(error)) from error
    sides, reasons = [], []
    for file in files[:: -(-len(files) // SAMPLE)]:
        try:
            sides.append(min(open_image(data.path(file)).size))
        except UnreadableImageError as error:
            reasons.append(str(error))
    if not sides:
        raise FolderError(
            f'Not one of {len(reasons)} images in {folder} can be read, e.g. {reasons[0]}'
        )
    return Survey(folder, len(files), round(statistics.median(sides)), _classes(files))


def _classes(files: list[str]) -> dict[str, int]:
    return dict(sorted(Counter(file.split('/')[0] for file in files if '/' in file).items()))


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
