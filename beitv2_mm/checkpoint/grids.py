"""The patch grids of position tensors, and resizing to another grid."""

from collections.abc import Mapping
from math import isqrt

from torch import Tensor

from beitv2_mm.checkpoint.names import BIAS_TABLE, SHARED_TABLE
from beitv2_mm.compat.safe_load import CheckpointError
from beitv2_mm.layers.position import (
    NUM_CLS_ROWS,
    Grid,
    resize_bias_table,
    resize_pos_embed,
    table_size,
)

MAX_PATCHES = 1 << 14  # 128 x 128, whose index of relative positions takes 2 GiB


def check_grid(grid: Grid, name: str) -> None:
    """Raises a CheckpointError unless the grid has 1 to `MAX_PATCHES` patches."""
    if min(grid) < 1 or grid[0] * grid[1] > MAX_PATCHES:
        raise CheckpointError(
            f'{name}: a grid of {grid[0]} x {grid[1]} patches; expected 1 to {MAX_PATCHES} patches.'
        )


def square_grid(patches: int, name: str) -> Grid:
    """The grid (g, g) of g * g patches."""
    side = isqrt(max(patches, 0))
    check_grid((side, side), name)
    if side * side != patches:
        raise _not_square(name)
    return side, side


def _not_square(name: str) -> CheckpointError:
    return CheckpointError(
        f'{name} comes from a grid that is not square, and its size does not tell the rows and '
        'columns. Pass source_grid=(rows, columns).'
    )


def table_grid(table: Tensor, name: str) -> Grid:
    """The grid (g, g) of a bias table of (2 g - 1)^2 + 3 rows."""
    span = isqrt(max(table.shape[0] - NUM_CLS_ROWS, 0)) if table.ndim == 2 else 0
    side = (span + 1) // 2
    if table.ndim != 2 or table.shape[0] != table_size((side, side)):
        raise _not_square(name)
    check_grid((side, side), name)
    return side, side


def grid_of(weights: Mapping[str, Tensor], part: str = '') -> Grid:
    """The square grid that a transformer was trained with, from tensors with official names.

    Raises:
        CheckpointError: there are no positions, or their grid is not square.
    """
    position = f'{part}pos_embed'
    if position in weights:
        return square_grid(weights[position].shape[1] - 1, position)
    for name in (SHARED_TABLE, f'{part}blocks.0.attn.{BIAS_TABLE}'):
        if name in weights:
            return table_grid(weights[name], name)
    raise CheckpointError('There are no position tensors, whose size tells the grid of patches.')


def resize(name: str, value: Tensor, target: Grid, source: Grid | None = None) -> Tensor:
    """Resizes a bias table or position embedding to another grid, and returns other tensors as is.

    Args:
        source: the grid that the tensor was trained with; None for a square one.

    Raises:
        CheckpointError: the tensor's grid is not square, or is not ``source``.
    """
    leaf = name.rpartition('.')[2]
    if leaf not in (BIAS_TABLE, 'pos_embed'):
        return value
    for grid in filter(None, (source, target)):
        check_grid(grid, name)
    fits = value.ndim == (2 if leaf == BIAS_TABLE else 3) and value.numel()
    if not fits or not value.is_floating_point():
        raise CheckpointError(f'{name} cannot be {tuple(value.shape)} of {value.dtype}.')
    try:
        if leaf == BIAS_TABLE:
            return resize_bias_table(value, source or table_grid(value, name), target)
        return resize_pos_embed(value, source or square_grid(value.shape[1] - 1, name), target)
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f'{name}: {error}') from None
