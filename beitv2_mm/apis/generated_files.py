"""Files of images from codes: reconstructions, samples, and images with a hole."""

import math
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from beitv2_mm.apis.files import image_size, load_image, write_table
from beitv2_mm.apis.generation import GenerationError, channels_first
from beitv2_mm.apis.pipeline import infer_files, save_picture
from beitv2_mm.apis.zoo import get_model
from beitv2_mm.datasets.reading import read_image
from beitv2_mm.generation import PixelDecoder
from beitv2_mm.models import VQKDTokenizer
from beitv2_mm.visualization.canvas import GREY
from beitv2_mm.visualization.generated import draw_reconstructions, draw_samples, to_bytes


def build_pixel_decoder(
    config: str | PathLike, checkpoint: str | PathLike, device: str | torch.device | None = None
) -> PixelDecoder:
    """A trained pixel decoder; the config of its training names the tokenizer.

    Raises:
        GenerationError: the config is of another model.
    """
    model = get_model(config, checkpoint, device)
    if not isinstance(model, PixelDecoder):
        raise GenerationError(
            f'{config} builds a {type(model).__name__}; expected is a PixelDecoder.'
        )
    return model


def extended(
    image: np.ndarray, pixels: int, patch_size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """An image with a border to paint, and the border: (H, W, C) -> (H', W', C) and (H', W') bool.

    The border has at least so many pixels, and whole patches.
    """
    rows, columns = (math.ceil(pixels / side) * side for side in patch_size)
    wide = np.pad(image, ((rows, rows), (columns, columns), (0, 0)))
    border = np.ones(wide.shape[:2], bool)
    border[rows : rows + image.shape[0], columns : columns + image.shape[1]] = False
    return wide, border


def reconstruct_images(
    files: Sequence[str],
    decoder: PixelDecoder,
    out: str | PathLike,
    progress: Callable[[int], None] = lambda count: None,
) -> dict[str, str]:
    """Writes ``out/pictures/NAME.png``, each image beside what is decoded from its codes and the
    difference, and ``out/reconstructions.csv`` with the PSNR in decibels.

    Args:
        files: see `beitv2_mm.apis.find_images`.
        progress: called with the number of images finished since the last call.

    Returns:
        Files that cannot be read, and the reasons.
    """
    out, unreadable = Path(out), dict[str, str]()
    out.mkdir(parents=True, exist_ok=True)
    device = next(decoder.parameters()).device

    def infer(file: str) -> tuple[np.ndarray, np.ndarray]:
        image = np.array(load_image(file, image_size(decoder.tokenizer)))
        with torch.no_grad():
            decoded = decoder(channels_first(image[None]).to(device))
        return image, to_bytes(decoded)[0]

    def rows() -> Iterator[list[str]]:
        for file, name, (image, decoded) in infer_files(files, infer, unreadable, progress):
            error = np.square(image.astype(float) - decoded).mean() / 255**2
            picture: Image.Image = draw_reconstructions(image[None], decoded[None])
            save_picture(picture, out / 'pictures' / f'{name}.png')
            yield [file, f'{-10 * math.log10(max(error, 1e-10)):.2f}']

    write_table(out / 'reconstructions.csv', ['file', 'psnr'], rows())
    return unreadable


def read_hole(
    file: str | PathLike, tokenizer: VQKDTokenizer, hole: str | PathLike | None, border: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """An image of the tokenizer's size and its hole, cut alike: (H, W, 3) uint8 and (H, W) bool.

    Args:
        hole: an image of the same size, whose white pixels are the hole; None for a border of so
            many pixels around the image, see `extended`.

    Raises:
        GenerationError: image and hole differ in size.
    """
    size = image_size(tokenizer)
    image = np.array(load_image(file, size))
    if hole is None:
        return extended(image, border, tokenizer.encoder.patch_size)
    (height, width), (rows, columns) = (read_image(f).shape[:2] for f in (file, hole))
    if (height, width) != (rows, columns):
        raise GenerationError(
            f'{file} has {height} x {width} pixels and {hole} {rows} x {columns}: give a mask of '
            'the same size.'
        )
    return image, np.array(load_image(hole, size)).mean(-1) > 127


def write_samples(
    images: np.ndarray,
    names: Sequence[str],
    seeds: Sequence[int],
    out: str | PathLike,
    columns: int = 10,
    seen: tuple[np.ndarray, np.ndarray] | None = None,
) -> None:
    """Writes ``out/samples.png``, a grid of all images, and ``out/images/NAME_SEED.png``, each.

    Args:
        columns: of the grid.
        seen: image and hole of `read_hole`, which the grid then begins with.
    """
    for image, name, seed in zip(images, names, seeds, strict=True):
        save_picture(
            Image.fromarray(image), Path(out) / 'images' / f'{name or "image"}_{seed:05d}.png'
        )
    if seen is not None:
        image, hole = seen
        images = np.concatenate([np.where(hole[..., None], np.uint8(GREY), image)[None], images])
        names = ['what is seen', *names]
    save_picture(draw_samples(images, names, columns), Path(out) / 'samples.png')
