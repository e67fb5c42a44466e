"""Attention inside of square windows, for images too large to attend to as a whole.

Follows ViTDet (Li et al., 2022, section 3): most blocks attend inside of windows that do not
overlap, a few see the whole image, and there is no CLS token, which no window could hold.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from beitv2_mm.layers.attention import Attention, Queries, select_tokens
from beitv2_mm.layers.position import Grid, gather_window_bias


def split_windows(x: Tensor, grid: Grid, size: int) -> Tensor:
    """Patch tokens (B, rows * columns, D) -> those of each window, (B * windows, size^2, D).

    Windows that reach over the right or the lower border are filled up with zeros.
    """
    rows, columns = grid
    x = F.pad(x.unflatten(1, grid), (0, 0, 0, -columns % size, 0, -rows % size))
    x = x.unflatten(2, (-1, size)).unflatten(1, (-1, size))  # (B, down, size, across, size, D)
    return x.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def join_windows(windows: Tensor, grid: Grid, size: int) -> Tensor:
    """What `split_windows` was given, (B, rows * columns, D), from its result."""
    rows, columns = grid
    down, across = -(-rows // size), -(-columns // size)
    x = windows.unflatten(1, (size, size)).unflatten(0, (-1, down, across))
    x = x.transpose(2, 3).flatten(3, 4).flatten(1, 2)  # (B, down * size, across * size, D)
    return x[:, :rows, :columns].flatten(1, 2)


class WindowAttention(Attention):
    """`Attention` whose patches see the ``window_size`` x ``window_size`` patches of their window.

    A window of the size of the table's grid takes the pretrained table as it is; another one
    resizes it. As in ViTDet, the zeros that fill up a window take part as keys.
    """

    def __init__(self, window_size: int, *args: Any) -> None:
        super().__init__(*args)
        self.window_size = window_size
        self.gather = gather_window_bias

    def forward(
        self, x: Tensor, grid: Grid, bias: Tensor | None = None, queries: Queries = None
    ) -> Tensor:
        size = self.window_size
        windows = super().forward(split_windows(x, grid, size), (size, size), bias)
        return select_tokens(join_windows(windows, grid, size), queries)
