"""Pre-norm transformer block: (B, N, D) -> (B, N, D), or (B, M, D) where M tokens are read."""

import torch
from timm.layers import DropPath, Mlp
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from beitv2_mm.layers.attention import Attention, Read, read_tokens
from beitv2_mm.layers.position import Grid

LAYER_NORM_EPS = 1e-6


class Block(nn.Module):
    """``x + drop(gamma_1 * attn(norm1(x)))``, then ``x + drop(gamma_2 * mlp(norm2(x)))``.

    ``layer_scale`` is the start of gamma_1 and gamma_2; None or 0 leaves them out. Each branch is
    dropped once, with rate ``drop_path``.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        layer_scale: float | None = None,
        drop_path: float = 0.0,
        grid: Grid | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attn = Attention(dim, num_heads, grid, attn_drop, proj_drop)
        self.norm2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=proj_drop)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.layer_scale = layer_scale
        self.gamma_1: nn.Parameter | None = None
        self.gamma_2: nn.Parameter | None = None
        if layer_scale:
            self.gamma_1 = nn.Parameter(torch.full((dim,), float(layer_scale)))
            self.gamma_2 = nn.Parameter(torch.full((dim,), float(layer_scale)))

    def forward(
        self, x: Tensor, grid: Grid, bias: Tensor | None = None, read: Read = None
    ) -> Tensor:
        """Tokens after the block. Those that are not ``read`` serve as keys and values alone."""
        attn = self.attn(self.norm1(x), grid, bias, read)
        x = read_tokens(x, read) + self.drop_path(
            attn if self.gamma_1 is None else self.gamma_1 * attn
        )
        mlp = self.mlp(self.norm2(x))
        return x + self.drop_path(mlp if self.gamma_2 is None else self.gamma_2 * mlp)

    def init_weights(self, depth: int, std: float = 0.02) -> None:
        """Truncated normal weights; those that end a branch are divided by sqrt(2 * depth).

        ``depth`` counts the blocks from 1 (BEiT section 2.5).
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                module.reset_parameters()
        nn.init.zeros_(self.attn.q_bias)
        nn.init.zeros_(self.attn.v_bias)
        if self.attn.grid is not None:
            nn.init.zeros_(self.attn.relative_position_bias_table)
        if self.layer_scale and self.gamma_1 is not None and self.gamma_2 is not None:
            nn.init.constant_(self.gamma_1, self.layer_scale)
            nn.init.constant_(self.gamma_2, self.layer_scale)
        with torch.no_grad():
            self.attn.proj.weight.div_((2 * depth) ** 0.5)
            self.mlp.fc2.weight.div_((2 * depth) ** 0.5)


def run_block(
    block: nn.Module,
    x: Tensor,
    grid: Grid,
    bias: Tensor | None,
    with_cp: bool = False,
    read: Read = None,
) -> Tensor:
    """``block(x, grid, bias, read)``; in training with ``with_cp`` its activations are computed
    again in the backward pass and not kept."""
    if with_cp and block.training and torch.is_grad_enabled():
        return checkpoint(block, x, grid, bias, read, use_reentrant=False)
    return block(x, grid, bias, read)
