"""Images -> files of the attention in them."""

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from beitv2_mm.apis.attention_model import AttentionModel
from beitv2_mm.apis.segmenter import result_names
from beitv2_mm.apis.tokenize import centre_crop
from beitv2_mm.checkpoint.atomic import write_atomic
from beitv2_mm.datasets import read_image
from beitv2_mm.layers.attention_maps import attention_probabilities, mass_mask, query_map
from beitv2_mm.visualization.attention_page import attention_page
from beitv2_mm.visualization.attention_pictures import (
    heat_map,
    mark_patch,
    mask_picture,
    overview,
    stamp,
)

RANDOM = 'RANDOM WEIGHTS: this attention means nothing'


def load_image(
    file: str | PathLike, size: tuple[int, int], white: float | None = None
) -> Image.Image:
    """An image file, cropped in the middle and resized to (height, width).

    Args:
        white: of files with 16 bits, see `beitv2_mm.datasets.read_image`.

    Raises:
        UnreadableImageError: a ValueError that names the file.
    """
    return centre_crop(Image.fromarray(read_image(file, white)), *size)


def normalise(image: Image.Image, model: AttentionModel) -> Tensor:
    """A picture -> (1, 3, H, W) as the model takes it."""
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    pixels = pixels.view(image.height, image.width, 3).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (model.mean, model.std))
    return ((pixels - mean) / std).unsqueeze(0)


def visualize_attention(
    files: Sequence[str],
    model: AttentionModel,
    out: str | PathLike,
    row: int | None = None,
    column: int | None = None,
    threshold: float | None = 0.6,
    block: int = -1,
    all_patches: bool = False,
    progress: Callable[[int], None] = lambda count: None,
) -> dict[str, str]:
    """Writes the pictures of each image, into ``out`` or, of several images, into ``out/NAME``:
    img.png, select.png, attn-headN.png, mask_thT_headN.png and overview.png.

    Args:
        files: see `beitv2_mm.apis.find_images`.
        row, column: of the patch whose attention is shown, from 0; None for the middle.
        threshold: share of the attention that the masks keep; None for no masks.
        block: from 0, negative ones from the end.
        all_patches: also write all_patches.html, see `attention_page`.
        progress: called with the number of images finished since the last call.

    Returns:
        Unreadable files and why.

    Raises:
        ValueError: the patch lies outside the grid, there is no such block, or the threshold is
            no share.
    """
    if threshold is not None and not 0 < threshold <= 1:
        raise ValueError(f'--threshold is a share, over 0 and up to 1, not {threshold:g}.')
    row = model.grid[0] // 2 if row is None else row
    column = model.grid[1] // 2 if column is None else column
    unreadable = {}
    for file, name in zip(files, result_names(files), strict=True):
        try:
            image = load_image(file, model.size)
        except ValueError as error:
            unreadable[file] = str(error)
        else:
            folder = Path(out) if len(files) == 1 else Path(out, name)
            attention = _write_pictures(image, model, folder, row, column, threshold, block)
            if all_patches:
                text = attention_page(
                    image,
                    attention[:, 1:, 1:].numpy(),
                    model.grid,
                    (row, column),
                    f'Attention in {Path(file).name}',
                    _caption(model, block),
                    RANDOM if model.is_random else '',
                )
                write_atomic(folder / 'all_patches.html', text.encode())
        progress(1)
    return unreadable


def _write_pictures(
    image: Image.Image,
    model: AttentionModel,
    folder: Path,
    row: int,
    column: int,
    threshold: float | None,
    block: int,
) -> Tensor:
    """Write the pictures of an image; returns the attention (heads, 1 + N, 1 + N)."""
    pixels = normalise(image, model).to(next(model.transformer.parameters()).device)
    attention = attention_probabilities(model.transformer, pixels, block)[0].float().cpu()
    maps = query_map(attention, model.grid, row, column)
    masks = None if threshold is None else mass_mask(maps, threshold).numpy()
    pictures = _head_pictures(image, maps.numpy(), masks, threshold)
    if model.is_random:
        pictures = {key: stamp(made, 'random weights') for key, made in pictures.items()}
    where = f'{_caption(model, block)}\nquery patch: row {row}, column {column}'
    warning = RANDOM if model.is_random else ''
    pictures |= {
        'img': image,
        'select': mark_patch(image, model.grid, row, column),
        'overview': overview(image, maps.numpy(), row, column, where, warning),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for key, made in pictures.items():
        made.save(folder / f'{key}.png')
    return attention


def _caption(model: AttentionModel, block: int) -> str:
    count = len(model.transformer.blocks)
    return (
        f'{model.name}, block {block % count} (of 0 to {count - 1}), input {model.size[0]} x '
        f'{model.size[1]}, {model.grid[0]} x {model.grid[1]} patches'
    )


def _head_pictures(
    image: Image.Image, maps: np.ndarray, masks: np.ndarray | None, threshold: float | None
) -> dict[str, Image.Image]:
    """File name -> heat map of each head, and mask of each head where there are masks."""
    pictures = {f'attn-head{head}': heat_map(m, image.size) for head, m in enumerate(maps)}
    for head, mask in enumerate(() if masks is None else masks):
        pictures[f'mask_th{threshold:g}_head{head}'] = mask_picture(image, mask)
    return pictures
