"""The image files that people give: finding, reading and naming them."""

import csv
import os
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path

from PIL import Image, ImageOps

from beitv2_mm.checkpoint.atomic import atomic
from beitv2_mm.datasets.image_folder import EXTENSIONS
from beitv2_mm.datasets.reading import read_image
from beitv2_mm.models import VQKDTokenizer


def find_images(inputs: Iterable[str | PathLike]) -> list[str]:
    """Files as given and all images below folders, those in sorted order, hidden ones ignored.

    Raises:
        FileNotFoundError: no such file or folder, or no image in a folder.
    """
    found: list[str] = []
    for given in map(Path, inputs):
        if given.is_dir():
            below = (path for path in sorted(given.rglob('*')) if path.suffix.lower() in EXTENSIONS)
            images = [
                str(path)
                for path in below
                if not any(part.startswith('.') for part in path.relative_to(given).parts)
            ]
            if not images:
                raise FileNotFoundError(
                    f'There is no image in {given} or below; files ending in '
                    f'{", ".join(EXTENSIONS)} were looked for.'
                )
            found += images
        elif given.is_file():
            found.append(str(given))
        else:
            raise FileNotFoundError(f'There is no file or folder {given}.')
    return list(dict.fromkeys(found))


def load_image(
    file: str | PathLike, size: tuple[int, int], white: float | None = None
) -> Image.Image:
    """The largest centred part of an image that has the aspect ratio of ``size`` (height, width),
    resized to it.

    Args:
        white: of files with 16 bits, see `beitv2_mm.datasets.read_image`.

    Raises:
        UnreadableImageError: a ValueError that names the file.
    """
    return ImageOps.fit(Image.fromarray(read_image(file, white)), (size[1], size[0]))


def image_size(tokenizer: VQKDTokenizer) -> tuple[int, int]:
    """Height and width in pixels of the images that a tokenizer was trained on."""
    (rows, columns), (height, width) = tokenizer.encoder.grid, tokenizer.encoder.patch_size
    return rows * height, columns * width


def result_names(files: Sequence[str]) -> list[Path]:
    """A relative name for the results of each file, without suffix where that tells them apart.

    >>> [str(name) for name in result_names(['a/x.png', 'b/x.png', 'b/y.png', 'b/y.jpg'])]
    ['a/x', 'b/x', 'b/y.png', 'b/y.jpg']
    """
    absolute = [Path(os.path.abspath(file)) for file in files]  # no '..', which leads out
    root = Path(os.path.commonpath([path.parent for path in absolute]))
    relative = [path.relative_to(root) for path in absolute]
    stems = [path.with_suffix('') for path in relative]
    return [
        path if stems.count(stem) > 1 else stem for path, stem in zip(relative, stems, strict=True)
    ]


def write_table(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a CSV file, which is there once all rows are."""
    with atomic(path) as part, part.open('w', newline='', encoding='utf-8') as file:
        table = csv.writer(file)
        table.writerow(head)
        table.writerows(rows)
