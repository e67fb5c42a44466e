"""Self-attention maps of one query patch: image (1, 3, H, W) -> (heads, rows, columns)."""

import torch
from torch import Tensor

from beitv2_mm.layers.vision_transformer import VisionTransformer


@torch.no_grad()
def attention_probabilities(model: VisionTransformer, image: Tensor, block: int = -1) -> Tensor:
    """Attention of one block: (B, 3, H, W), normalised -> (B, heads, 1 + N, 1 + N).

    The bias is resized to the image's grid. Blocks after ``block`` are not run.

    Args:
        block: index from 0; negative ones count from the end.

    Raises:
        ValueError: there is no such block.
    """
    count = len(model.blocks)
    if not -count <= block < count:
        raise ValueError(f'There is no block {block}: blocks are 0 to {count - 1}, -1 is the last.')
    index = block % count
    x, grid = model.embed(image)
    bias = model.shared_bias(grid)
    for before in model.blocks[:index]:
        x = before(x, grid, bias)
    chosen = model.blocks[index]
    return chosen.attn.probabilities(chosen.norm1(x), grid, bias)


def query_map(attention: Tensor, grid: tuple[int, int], row: int, column: int) -> Tensor:
    """Attention from the patch (row, column) to all patches.

    (heads, 1 + N, 1 + N) -> (heads, rows, columns)

    Raises:
        ValueError: the patch lies outside the grid.
    """
    if not (0 <= row < grid[0] and 0 <= column < grid[1]):
        raise ValueError(
            f'Patch ({row}, {column}) lies outside the {grid[0]} x {grid[1]} grid: rows are 0 to '
            f'{grid[0] - 1}, columns 0 to {grid[1] - 1}.'
        )
    return attention[:, 1 + row * grid[1] + column, 1:].unflatten(1, grid)


def mass_mask(maps: Tensor, threshold: float = 0.6) -> Tensor:
    """Marks the strongest patches that together hold ``threshold`` of each map's mass.

    (heads, rows, columns) -> bool of the same shape
    """
    flat = maps.flatten(1)
    values, order = (flat / flat.sum(dim=1, keepdim=True)).sort(dim=1)
    kept = values.cumsum(dim=1) > 1 - threshold
    return torch.zeros_like(kept).scatter_(1, order, kept).view(maps.shape)
