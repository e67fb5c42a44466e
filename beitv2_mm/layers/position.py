"""Relative position bias and absolute position embeddings, for any patch grid.

A *grid* is ``(rows, columns)`` of patches. A bias table holds one row for every offset between two
patches, ``(2 * rows - 1) * (2 * columns - 1)``, and three more for CLS to patch, patch to CLS and
CLS to CLS.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from beitv2_mm.layers.gather import gather_columns

Grid = tuple[int, int]
NUM_CLS_ROWS = 3


def table_size(grid: Grid) -> int:
    """Number of rows of the bias table of ``grid``."""
    return (2 * grid[0] - 1) * (2 * grid[1] - 1) + NUM_CLS_ROWS


@torch.compiler.assume_constant_result  # a constant of the compiled graph, which is not traced
def relative_position_index(grid: Grid, device: torch.device | str = 'cpu') -> Tensor:
    """Row of the bias table for every (query, key) pair, CLS first: (N + 1, N + 1) int64.

    All callers with this grid share the tensor: do not write to it.
    """
    return _index(grid, torch.device(device))


@torch.compiler.assume_constant_result
def _window_position_index(grid: Grid, device: torch.device) -> Tensor:
    """The index of a window.

    Windows are smaller than the image that other blocks see, and in one compiled graph, torch 2.14
    confuses constants that come from one function.
    """
    return _index(grid, device)


@lru_cache(maxsize=16)
def _index(grid: Grid, device: torch.device) -> Tensor:
    rows, columns = grid
    y, x = np.divmod(np.arange(rows * columns), columns)  # (N,)
    offset_y = y[:, None] - y[None, :] + rows - 1  # (N, N), from 0
    offset_x = x[:, None] - x[None, :] + columns - 1
    size = table_size(grid)
    index: np.ndarray = np.empty((rows * columns + 1, rows * columns + 1), dtype=np.int64)
    index[1:, 1:] = offset_y * (2 * columns - 1) + offset_x
    index[0, 1:], index[1:, 0], index[0, 0] = size - 3, size - 2, size - 1
    return _constant(index, device)


def _constant(array: np.ndarray, device: torch.device) -> Tensor:
    # A tensor that is created in inference mode cannot be used in a later backward pass.
    with torch.inference_mode(False):
        return torch.from_numpy(array).to(device)


def _geometric_offsets(source: int, target: int) -> np.ndarray:
    """Positions of the ``2 * source - 1`` offsets of a table among those of the target grid.

    Neighbouring offsets are 1, q, q^2, ... apart, so that near offsets keep their meaning and only
    far ones are stretched. The ratio q lets the last offset reach the border of the target; it is
    kept within [1.01, 1.5] (BEiT's fine-tuning recipe).
    """
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        ratio = (low + high) / 2
        reach = (1 - ratio ** (source - 1)) / (1 - ratio)
        low, high = (low, ratio) if reach > target - 1 else (ratio, high)
    steps = ratio ** np.arange(source - 1)  # the last ratio tried, as in the reference
    right = np.cumsum(steps)
    offsets: np.ndarray = np.concatenate([-right[::-1], [0.0], right])
    return offsets


@torch.compiler.assume_constant_result
def _resize_matrices(source: Grid, target: Grid, device: torch.device) -> Tensor:
    """Matrices of cubic spline interpolation along both axes, (2 target - 1, 2 source - 1) each.

    Both are flattened and concatenated, because torch 2.14 confuses two constants that come from
    the same function.
    """
    return _matrices(source, target, device)


@torch.compiler.assume_constant_result
def _window_resize_matrices(source: Grid, target: Grid, device: torch.device) -> Tensor:
    """Those for the table of a window, see `_window_position_index`."""
    return _matrices(source, target, device)


@lru_cache(maxsize=64)
def _matrices(source: Grid, target: Grid, device: torch.device) -> Tensor:
    axes = [_spline_matrix(*axis).ravel() for axis in zip(source, target, strict=True)]
    return _constant(np.concatenate(axes).astype(np.float32), device)


def _spline_matrix(source: int, target: int) -> np.ndarray:
    identity: np.ndarray = np.eye(2 * source - 1)
    if source == target:
        return identity
    if source < 3:  # too few offsets for a cubic: take the nearest value, or that of the border
        nearest = np.arange(1 - target, target).clip(1 - source, source - 1) + source - 1
        rows: np.ndarray = identity[nearest]
        return rows
    # Imported here because it takes half a second, which every process would wait at its start.
    from scipy.interpolate import make_interp_spline

    known = _geometric_offsets(source, target)
    wanted = np.arange(1 - target, target, dtype=np.float64).clip(known[0], known[-1])
    matrix: np.ndarray = make_interp_spline(known, identity, k=3)(wanted)
    return matrix


def resize_bias_table(table: Tensor, source: Grid, target: Grid, window: bool = False) -> Tensor:
    """Resizes the bias table of one grid to another.

    (table_size(source), heads) -> (table_size(target), heads). The offsets are interpolated along
    each axis by a cubic spline with geometrically spaced knots; the CLS rows are kept. The result
    is linear in ``table`` and differentiable. ``window`` says that the target is a window.
    """
    if len(table) != table_size(source):
        raise ValueError(
            f'A bias table of a {source[0]} x {source[1]} grid has {table_size(source)} rows, '
            f'this one has {len(table)}. Give the grid that the table was trained with.'
        )
    if source == target:
        return table
    shapes = [(2 * new - 1, 2 * old - 1) for old, new in zip(source, target, strict=True)]
    make = _window_resize_matrices if window else _resize_matrices
    matrices = make(source, target, table.device).to(table.dtype)
    along_y, along_x = (
        matrix.view(shape)
        for matrix, shape in zip(matrices.split([t * u for t, u in shapes]), shapes, strict=True)
    )
    offsets = table[:-NUM_CLS_ROWS].reshape(2 * source[0] - 1, 2 * source[1] - 1, -1)
    with torch.autocast(table.device.type, enabled=False):  # a small product, in full precision
        offsets = torch.einsum('ty,yxh,ux->tuh', along_y, offsets, along_x)
    return torch.cat([offsets.flatten(0, 1), table[-NUM_CLS_ROWS:]])


def resize_pos_embed(pos_embed: Tensor, source: Grid, target: Grid, num_prefix: int = 1) -> Tensor:
    """Resizes the position embedding of one grid to another, bicubic; prefix tokens are kept.

    (1, num_prefix + rows * columns, D) -> (1, num_prefix + new rows * new columns, D)
    """
    if pos_embed.shape[1] != num_prefix + source[0] * source[1]:
        raise ValueError(
            f'A position embedding of a {source[0]} x {source[1]} grid has '
            f'{num_prefix + source[0] * source[1]} rows, this one has {pos_embed.shape[1]}. '
            'Give the grid that it was trained with.'
        )
    if source == target:
        return pos_embed
    prefix, patches = pos_embed[:, :num_prefix], pos_embed[:, num_prefix:]
    patches = patches.reshape(1, *source, -1).permute(0, 3, 1, 2)  # (1, D, rows, columns)
    # As the reference does, pass a scale for a tenth of a patch more, instead of the size.
    scale = [(new + 0.1) / old for new, old in zip(target, source, strict=True)]
    patches = F.interpolate(patches.float(), scale_factor=scale, mode='bicubic').to(pos_embed)
    return torch.cat([prefix, patches.flatten(2).transpose(1, 2)], dim=1)


def gather_bias(table: Tensor, source: Grid, target: Grid) -> Tensor:
    """Attention bias (heads, N + 1, N + 1) of grid ``target`` from the table of ``source``."""
    table = resize_bias_table(table, source, target)
    return _gather(table, relative_position_index(target, table.device))


def gather_patch_bias(table: Tensor, source: Grid, target: Grid) -> Tensor:
    """The bias of `gather_bias` for patches alone, (heads, N, N)."""
    table = resize_bias_table(table, source, target)
    return _gather(table, relative_position_index(target, table.device)[1:, 1:])


def gather_window_bias(table: Tensor, source: Grid, target: Grid) -> Tensor:
    """`gather_patch_bias` for a window: ``target`` is its size in patches."""
    table = resize_bias_table(table, source, target, window=True)
    return _gather(table, _window_position_index(target, table.device)[1:, 1:])


def _gather(table: Tensor, index: Tensor) -> Tensor:
    # Transposing the small table is up to ten times as fast on a CPU as transposing the bias.
    by_head = table.t().contiguous()
    return gather_columns(by_head, index.flatten()).unflatten(1, index.shape)


class BiasTable(nn.Module):
    """A module that owns a bias table for ``grid``; if ``grid`` is None, it owns none."""

    def __init__(self, grid: Grid | None, num_heads: int) -> None:
        super().__init__()
        self.grid = grid
        self._derived: tuple[tuple[Any, ...], Tensor, Tensor] | None = None
        if grid is not None:
            self.relative_position_bias_table = nn.Parameter(
                torch.zeros(table_size(grid), num_heads)
            )

    def derive(self, make: Callable[[Tensor, Grid, Grid], Tensor], grid: Grid) -> Tensor:
        """Computes ``make(table, self.grid, grid)``.

        On a CPU and without gradients, the result is cached until the table or the grid changes.
        """
        assert self.grid is not None
        table = self.relative_position_bias_table
        needs_grad = torch.is_grad_enabled() and table.requires_grad
        # On other devices the comparison of tables would make the host wait, and `make` is cheap.
        if needs_grad or table.device.type != 'cpu' or torch.compiler.is_compiling():
            return make(table, self.grid, grid)
        key, cached = (make, grid, table.dtype), self._derived
        # Compare values, because fused optimizers and weight averaging do not change the version.
        if cached is None or cached[0] != key or not torch.equal(cached[1], table):
            with torch.inference_mode(False), torch.no_grad():
                cached = self._derived = key, table.clone(), make(table, self.grid, grid)
        return cached[2]


class RelativePositionBias(BiasTable):
    """Bias of every head for every pair of tokens: grid -> (heads, N + 1, N + 1)."""

    def __init__(self, grid: Grid, num_heads: int) -> None:
        super().__init__(grid, num_heads)

    def forward(self, grid: Grid) -> Tensor:
        return self.derive(gather_bias, grid)
