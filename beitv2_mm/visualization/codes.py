"""What codes look like: patches grouped by code, and images coloured by code."""

import numpy as np
from PIL import Image

from beitv2_mm.visualization.canvas import (
    beside,
    check_images,
    default_palette,
    enlarge,
    new_canvas,
    outline,
    write,
)

GAP = 4
LABEL_WIDTH = 104


def choose_codes(codes: np.ndarray, num_groups: int, per_group: int) -> list[int]:
    """Codes (M, N) -> at most `num_groups` code ids, the most frequent first.

    They are taken at equal steps from the ranking by frequency, so that the choice favours neither
    common nor pretty codes. Only codes that occur in `per_group` different images take part, or, if
    there is none, those that occur in the most images.
    """
    ids, counts = np.unique(codes, return_counts=True)
    # An image counts once for a code, because twelve patches of the same sky would show nothing.
    num_images = np.array([(codes == code).any(axis=1).sum() for code in ids])
    enough = num_images >= min(per_group, int(num_images.max()))
    ids, counts = ids[enough], counts[enough]
    ranked = ids[np.argsort(-counts, kind='stable')]
    steps = np.linspace(0, len(ranked) - 1, min(num_groups, len(ranked)))
    return [int(ranked[round(step)]) for step in steps]


def code_atlas(
    images: np.ndarray,
    codes: np.ndarray,
    patch_size: int,
    num_groups: int = 12,
    per_group: int = 12,
    context: int = 1,
    tile: int = 72,
    seed: int = 0,
) -> Image.Image:
    """uint8 images (M, H, W, 3) and codes (M, N) or (M, rows, columns) -> picture, a row a code.

    A row shows the code's id, its share of all patches and `per_group` patches drawn at random from
    different images. Each patch is outlined and shown with `context` patches around it (the window
    is moved inwards at the image's border), enlarged to `tile` pixels. Raises ValueError for arrays
    that do not fit.
    """
    rows, columns = check_images(images, patch_size)
    codes = np.asarray(codes).reshape(len(images), rows * columns)
    chosen = choose_codes(codes, num_groups, per_group)
    rng = np.random.default_rng(seed)
    step = tile + GAP
    picture = new_canvas(LABEL_WIDTH + per_group * step - GAP, len(chosen) * step - GAP)
    for row, code in enumerate(chosen):
        top = row * step
        share = (codes == code).mean()
        write(picture, (0, top + tile // 2 - 10), f'code {code}', size=16)
        write(picture, (0, top + tile // 2 + 11), f'{100 * share:.2f} %', size=15)
        where = np.flatnonzero((codes == code).any(axis=1))
        for column, index in enumerate(rng.permutation(where)[:per_group]):
            patch = int(rng.choice(np.flatnonzero(codes[index] == code)))
            tile_picture = _patch_in_context(
                images[index], divmod(patch, columns), patch_size, context, tile
            )
            picture.paste(tile_picture, (LABEL_WIDTH + column * step, top))
    return picture


def _patch_in_context(
    image: np.ndarray, position: tuple[int, int], patch_size: int, context: int, tile: int
) -> Image.Image:
    """Image (H, W, 3) and a patch's (row, column) -> its surroundings, outlined, `tile` pixels."""
    side = (2 * context + 1) * patch_size
    height, width = min(side, image.shape[0]), min(side, image.shape[1])
    y, x = (index * patch_size for index in position)
    top = min(max(y - context * patch_size, 0), image.shape[0] - height)
    left = min(max(x - context * patch_size, 0), image.shape[1] - width)
    window = enlarge(image[top : top + height, left : left + width], tile, tile)
    if (height, width) != (patch_size, patch_size):
        x0, x1 = ((x - left + d) * tile // width for d in (0, patch_size))
        y0, y1 = ((y - top + d) * tile // height for d in (0, patch_size))
        outline(window, (x0, y0, x1, y1))
    return window


def code_map(image: np.ndarray, codes: np.ndarray, tile: int = 192) -> Image.Image:
    """uint8 image (H, W, 3) and codes (rows, columns) -> the image beside its codes in colours.

    A code has the same colour in every map; both halves are `tile` pixels high. Raises ValueError
    unless codes are a grid.
    """
    codes = np.asarray(codes)
    if codes.ndim != 2:
        raise ValueError(f'codes must be a (rows, columns) grid, got shape {codes.shape}')
    width = round(tile * image.shape[1] / image.shape[0])
    colours = Image.fromarray(default_palette(int(codes.max()) + 1)[codes])
    coloured = colours.resize((width, tile), Image.Resampling.NEAREST)
    return beside([enlarge(image, tile, width), coloured], GAP)
