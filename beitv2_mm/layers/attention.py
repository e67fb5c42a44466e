"""Multi-head self-attention with an additive bias: (B, N, D) -> (B, N, D).

A caller that needs the output of only some tokens names them as *queries*: None for all tokens, a
slice (the same tokens of every image) or indices (B, M). The output then has M tokens, and the
other tokens serve as keys and values only.
"""

from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from beitv2_mm.layers.gather import needs_grad_on_cpu
from beitv2_mm.layers.position import (
    BiasTable,
    Grid,
    gather_bias,
    gather_patch_bias,
    resize_bias_table,
)

# Largest bias, in elements (4 MiB), that a block caches; base at 224 px has 0.5 million.
MAX_CACHED_BIAS = 2**20

Queries: TypeAlias = slice | Tensor | None


def select_tokens(x: Tensor, queries: Queries) -> Tensor:
    """Selects the query tokens of every image: (B, N, D) -> (B, M, D)."""
    if queries is None:
        return x
    if isinstance(queries, slice):
        return x[:, queries]
    first = torch.arange(0, x.shape[0] * x.shape[1], x.shape[1], device=x.device)  # (B,)
    rows = (first[:, None] + queries).flatten()  # (B * M,)
    return x.flatten(0, 1).index_select(0, rows).view(*queries.shape, -1)  # (B, M, D)


def select_bias_rows(bias: Tensor, queries: Queries) -> Tensor:
    """Selects the bias of the query tokens: (heads, N, N) -> (1 or B, heads, M, N)."""
    if not isinstance(queries, Tensor):
        return bias[None, :, queries or slice(None)]  # (1, heads, M, N)
    rows = bias.index_select(1, queries.flatten())  # (heads, B * M, N)
    return rows.unflatten(1, queries.shape).transpose(0, 1)  # (B, heads, M, N)


def softmax_weights(q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
    """Queries (B, heads, M, d), keys (B, heads, N, d) and bias -> (B, heads, M, N)."""
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if bias is not None:  # a compiler chooses by itself where it adds in place
        logits = logits + bias if torch.compiler.is_compiling() else logits.add_(bias)
    return logits.softmax(dim=-1)


def _lacks_fused_kernel(bias: Tensor | None) -> bool:
    """Whether PyTorch has no fused attention for this bias.

    On CPUs the fused kernel gives the bias no gradient; PyTorch's fallback for a trained bias is
    slower than `softmax_weights` and keeps twice as much memory for the backward pass.
    """
    return bias is not None and needs_grad_on_cpu(bias)


class Attention(BiasTable):
    """Self-attention whose queries and values have a learned bias, and whose keys have none.

    With ``grid`` the block owns a relative position bias table (``position='layerwise'``). Without
    ``grid`` it adds the bias that the caller passes. ``with_cls=False`` says that its tokens are
    patches alone, without CLS in front.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        grid: Grid | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        with_cls: bool = True,
    ) -> None:
        super().__init__(grid, num_heads)
        if dim % num_heads:
            raise ValueError(f'Width {dim} cannot be split into {num_heads} heads of equal width.')
        self.dim = dim
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.attn_drop = attn_drop
        self.gather = gather_bias if with_cls else gather_patch_bias
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def position_bias(self, grid: Grid, bias: Tensor | None = None) -> Tensor | None:
        """The bias (heads, N, N) for a patch grid: from this block's own table, else ``bias``."""
        if self.grid is None:
            return bias
        if self.num_heads * (1 + grid[0] * grid[1]) ** 2 <= MAX_CACHED_BIAS:
            return self.derive(self.gather, grid)
        # Only the small resized table is cached: at a high resolution, the biases of many blocks
        # would take gigabytes.
        resized = self.derive(resize_bias_table, grid)
        return self.gather(resized, grid, grid)  # without resizing it again

    def project(self, x: Tensor, queries: Queries = None) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (B, N, D) -> queries (B, heads, M, d), keys and values (B, heads, N, d)."""
        k_bias = torch.zeros_like(self.v_bias)
        # The type is checked first: `==` on a tensor compares elements and breaks a compiled graph.
        without_cls = isinstance(queries, slice) and queries == slice(1, None)
        # split() joins the gradients of its parts in one pass; unbind() would copy them twice.
        if queries is None or without_cls:
            bias = torch.cat([self.q_bias, k_bias, self.v_bias])
            q, k, v = F.linear(x, self.qkv.weight, bias).split(self.dim, dim=2)  # (B, N, D) each
            if without_cls:  # cheaper than a copy of all patch tokens before the product
                q = q[:, 1:]
        else:
            q_weight, kv_weight = self.qkv.weight.split([self.dim, 2 * self.dim])
            kv_bias = torch.cat([k_bias, self.v_bias])
            q = F.linear(select_tokens(x, queries), q_weight, self.q_bias)  # (B, M, D)
            k, v = F.linear(x, kv_weight, kv_bias).split(self.dim, dim=2)  # (B, N, D) each
        return self._split_heads(q), self._split_heads(k), self._split_heads(v)

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, N, d)

    def probabilities(self, x: Tensor, grid: Grid, bias: Tensor | None = None) -> Tensor:
        """Attention weights after the softmax, for visualisation: (B, heads, N, N)."""
        q, k, _ = self.project(x)
        bias = self.position_bias(grid, bias)
        return softmax_weights(q, k, bias)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, queries: Queries = None
    ) -> Tensor:
        """Applies attention to the results of `project` and `position_bias`: -> (B, M, D)."""
        if bias is not None:
            bias = select_bias_rows(bias, queries).to(q.dtype)
        dropout = self.attn_drop if self.training else 0.0
        if _lacks_fused_kernel(bias):
            x = F.dropout(softmax_weights(q, k, bias), dropout) @ v
        else:
            x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
        return x.transpose(1, 2).flatten(2)  # (B, heads, M, d) -> (B, M, D)

    def forward(
        self, x: Tensor, grid: Grid, bias: Tensor | None = None, queries: Queries = None
    ) -> Tensor:
        q, k, v = self.project(x, queries)
        bias = self.position_bias(grid, bias)
        x = self.attend(q, k, v, bias, queries)
        return self.proj_drop(self.proj(x))
