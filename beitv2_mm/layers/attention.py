"""Multi-head self-attention with an additive bias: (B, N, D) -> (B, N, D)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from beitv2_mm.layers.position import Grid, gather_bias, table_size


class Attention(nn.Module):
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
        super().__init__()
        if dim % num_heads:
            raise ValueError(f'Width {dim} cannot be split into {num_heads} heads of equal width.')
        self.num_heads = num_heads
        self.grid = grid
        self.attn_drop = attn_drop
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        if grid is not None:
            self.relative_position_bias_table = nn.Parameter(
                torch.zeros(table_size(grid), num_heads)
            )

    def position_bias(self, grid: Grid, bias: Tensor | None = None) -> Tensor | None:
        """The bias of this block for a patch grid: its own, else ``bias``; (heads, N, N)."""
        if self.grid is None:
            return bias
        return gather_bias(self.relative_position_bias_table, self.grid, grid)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, heads, N, D / heads)."""
        batch, tokens, _ = x.shape
        bias = torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])
        qkv = F.linear(x, self.qkv.weight, bias)
        qkv = qkv.view(batch, tokens, 3, self.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, N, D / heads)
        return q, k, v

    def probabilities(self, x: Tensor, grid: Grid, bias: Tensor | None = None) -> Tensor:
        """Softmax weights, for looking at: (B, heads, N, N)."""
        q, k, _ = self.project(x)
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        bias = self.position_bias(grid, bias)
        return (logits if bias is None else logits + bias).softmax(dim=-1)

    def forward(self, x: Tensor, grid: Grid, bias: Tensor | None = None) -> Tensor:
        q, k, v = self.project(x)
        bias = self.position_bias(grid, bias)
        x = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=None if bias is None else bias.to(q.dtype),
            dropout_p=self.attn_drop if self.training else 0.0,
        )  # (B, heads, N, D / heads)
        x = x.transpose(1, 2).flatten(2)  # (B, N, D)
        return self.proj_drop(self.proj(x))
