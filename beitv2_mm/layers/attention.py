"""Multi-head self-attention with an additive bias: (B, N, D) -> (B, N, D).

Where only some tokens of the result are read, the others need not be computed. What is *read* is
None for all of them, a slice (the same tokens of every image) or indices (B, M); N becomes M.
"""

from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from beitv2_mm.layers.position import (
    BiasTable,
    Grid,
    gather_bias,
    needs_grad_on_cpu,
    resize_bias_table,
)

MAX_KEPT_BIAS = 2**20  # numbers, 4 MiB a block; 0.5 million for base at 224 px

Read: TypeAlias = slice | Tensor | None


def read_tokens(x: Tensor, read: Read) -> Tensor:
    """The tokens that are read: (B, N, D) -> (B, M, D)."""
    if read is None:
        return x
    if isinstance(read, slice):
        return x[:, read]
    rows = torch.arange(0, x.shape[0] * x.shape[1], x.shape[1], device=x.device)[:, None] + read
    return x.flatten(0, 1).index_select(0, rows.flatten()).view(*read.shape, -1)


def read_rows(bias: Tensor, read: Read) -> Tensor:
    """The rows of the bias that belong to them: (heads, N, N) -> (1 or B, heads, M, N)."""
    if not isinstance(read, Tensor):
        return bias[None, :, read or slice(None)]
    return bias.index_select(1, read.flatten()).unflatten(1, read.shape).transpose(0, 1)


def softmax_weights(q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
    """Queries (B, heads, M, d), keys (B, heads, N, d) and bias -> (B, heads, M, N)."""
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if bias is not None:  # a compiler writes in place where it can
        logits = logits + bias if torch.compiler.is_compiling() else logits.add_(bias)
    return logits.softmax(dim=-1)


def _lacks_kernel(bias: Tensor | None) -> bool:
    """On CPUs, PyTorch's fused attention gives the bias no gradient; what it does instead is
    slower than `softmax_weights` and keeps twice as much."""
    return bias is not None and needs_grad_on_cpu(bias)


class Attention(BiasTable):
    """Self-attention whose keys have no bias of their own (queries and values have one).

    With ``grid`` the block owns a relative position bias table (``position='layerwise'``); without,
    it adds the bias that it is given.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        grid: Grid | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__(grid, num_heads)
        if dim % num_heads:
            raise ValueError(f'Width {dim} cannot be split into {num_heads} heads of equal width.')
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.attn_drop = attn_drop
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def position_bias(self, grid: Grid, bias: Tensor | None = None) -> Tensor | None:
        """The bias of this block for a patch grid: its own, else ``bias``; (heads, N, N)."""
        if self.grid is None:
            return bias
        if self.num_heads * (1 + grid[0] * grid[1]) ** 2 <= MAX_KEPT_BIAS:
            return self.derive(gather_bias, grid)
        # Kept is the small table alone: the bias of many blocks at a high resolution is gigabytes.
        return gather_bias(self.derive(resize_bias_table, grid), grid, grid)

    def project(self, x: Tensor, read: Read = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of the tokens that are read, (B, heads, M, D / heads), keys and values of all,
        (B, heads, N, D / heads)."""
        no_bias = torch.zeros_like(self.v_bias)
        # Asked of a tensor, `==` compares its elements, which breaks a compiled graph.
        nearly_all = isinstance(read, slice) and read == slice(1, None)
        if read is None or nearly_all:
            parts = [(x, self.qkv.weight, torch.cat([self.q_bias, no_bias, self.v_bias]))]
        else:
            of_queries, of_others = self.qkv.weight.split([len(no_bias), 2 * len(no_bias)])
            parts = [
                (read_tokens(x, read), of_queries, self.q_bias),
                (x, of_others, torch.cat([no_bias, self.v_bias])),
            ]
        # Chunks, whose gradients are joined in one pass; those of unbind() would be copied twice.
        chunks = [chunk for part in parts for chunk in F.linear(*part).split(len(no_bias), dim=2)]
        q, k, v = (c.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for c in chunks)
        # A query or two too many cost less than a copy of the other tokens.
        return q[:, :, read] if nearly_all else q, k, v

    def probabilities(self, x: Tensor, grid: Grid, bias: Tensor | None = None) -> Tensor:
        """Softmax weights, for looking at: (B, heads, N, N)."""
        q, k, _ = self.project(x)
        bias = self.position_bias(grid, bias)
        return softmax_weights(q, k, bias)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, read: Read = None
    ) -> Tensor:
        """Queries, keys, values of `project` and bias of `position_bias` -> (B, M, D)."""
        if bias is not None:
            bias = read_rows(bias, read).to(q.dtype)
        dropout = self.attn_drop if self.training else 0.0
        if _lacks_kernel(bias):
            x = F.dropout(softmax_weights(q, k, bias), dropout) @ v
        else:
            x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
        # (B, heads, M, D / heads)
        return x.transpose(1, 2).flatten(2)

    def forward(
        self, x: Tensor, grid: Grid, bias: Tensor | None = None, read: Read = None
    ) -> Tensor:
        q, k, v = self.project(x, read)
        bias = self.position_bias(grid, bias)
        x = self.attend(q, k, v, bias, read)
        return self.proj_drop(self.proj(x))
