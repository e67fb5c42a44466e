"""Images beside what the backbone sees of them during masked image modelling."""

import numpy as np
from PIL import Image

from beitv2_mm.visualization.canvas import GREY, check_images, check_patches, enlarge, new_canvas

GAP = 4


def masked_images(
    images: np.ndarray, masks: np.ndarray, patch_size: int, columns: int = 4, tile: int = 128
) -> Image.Image:
    """uint8 images (M, H, W, 3) and masks (M, N) or (M, rows, columns), true where hidden ->
    picture of pairs (original, masked input), `columns` pairs a row, each `tile` pixels high.

    Raises ValueError for arrays that do not fit.
    """
    rows, grid_columns = check_images(images, patch_size)
    masks = check_patches('masks', np.asarray(masks, dtype=bool), len(images), rows * grid_columns)
    width = round(tile * images.shape[2] / images.shape[1])
    pair_width = 2 * width + GAP
    columns = min(columns, len(images))
    lines = -(-len(images) // columns)
    picture = new_canvas(
        columns * (pair_width + 3 * GAP) - 3 * GAP, lines * (tile + 3 * GAP) - 3 * GAP
    )
    for index, (image, mask) in enumerate(zip(images, masks, strict=True)):
        line, column = divmod(index, columns)
        x, y = column * (pair_width + 3 * GAP), line * (tile + 3 * GAP)
        original = enlarge(image, tile, width)
        picture.paste(original, (x, y))
        hidden = Image.fromarray(mask.reshape(rows, grid_columns))
        # Masked after enlarging: before it, grey would bleed into the patches that stay visible.
        hidden = hidden.resize((width, tile), Image.Resampling.NEAREST)
        masked = original.copy()
        masked.paste((GREY, GREY, GREY), (0, 0), hidden)
        picture.paste(masked, (x + width + GAP, y))
    return picture
