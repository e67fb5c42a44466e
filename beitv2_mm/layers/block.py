"""Pre-norm transformer block: (B, N, D) -> (B, N, D), or (B, M, D) for M query tokens."""

from typing import Any

import torch
from timm.layers import DropPath, Mlp
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from beitv2_mm.layers.attention import Attention, Queries, select_tokens
from beitv2_mm.layers.position import Grid
from beitv2_mm.layers.recompute import WithCp, recompute, recompute_except_products
from beitv2_mm.layers.windows import WindowAttention

LAYER_NORM_EPS = 1e-6


class Block(nn.Module):
    """``x + gamma_1 * drop(attn(norm1(x)))``, then ``x + gamma_2 * drop(mlp(norm2(x)))``.

    ``layer_scale`` is the initial value of gamma_1 and gamma_2; None or 0 leaves them out. Each
    branch is dropped once, with rate ``drop_path``.

    ``with_cp`` ("with checkpointing", mmengine's name) saves memory in training, see
    `beitv2_mm.layers.recompute`. True keeps only the block's input and computes everything twice.
    'selective' computes GELU twice: its output is a fifth of what a block keeps in half precision,
    and one element-wise pass restores it. A compiled block computes its other element-wise
    operations and norms twice as well, at no extra pass.

    ``window_size`` is None for attention to all tokens, with CLS; 0 for attention to all patches,
    where there is no CLS; else the side of windows, see `WindowAttention`.
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
        with_cp: WithCp = False,
        window_size: int | None = None,
    ) -> None:
        super().__init__()
        if with_cp not in (False, True, 'selective'):
            raise ValueError(f"with_cp is False, True or 'selective', but {with_cp!r} was given.")
        self.with_cp = with_cp
        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        attention = (dim, num_heads, grid, attn_drop, proj_drop)
        if window_size:
            self.attn: Attention = WindowAttention(window_size, *attention)
        else:
            self.attn = Attention(*attention, with_cls=window_size is None)
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
        self, x: Tensor, grid: Grid, bias: Tensor | None = None, queries: Queries = None
    ) -> Tensor:
        """Tokens after the block; tokens that are not among ``queries`` serve as keys and values
        only."""
        if not (self.with_cp and self.training and torch.is_grad_enabled()):
            return self._run(x, grid, bias, queries)
        if self.with_cp != 'selective':
            return recompute(self._run, x, grid, bias, queries)
        if torch.compiler.is_compiling():
            return recompute_except_products(self._run, x, grid, bias, queries)
        return self._run(x, grid, bias, queries, recompute_gelu=True)

    def _run(
        self,
        x: Tensor,
        grid: Grid,
        bias: Tensor | None,
        queries: Queries,
        recompute_gelu: bool = False,
    ) -> Tensor:
        mlp = self._mlp_recomputing_gelu if recompute_gelu else self.mlp
        # Do not bind the output of a branch: it would stay alive during the other branch.
        x = self._add(
            select_tokens(x, queries),
            self.attn(self.norm1(x), grid, bias, queries),
            self.gamma_1,
        )
        return self._add(x, mlp(self.norm2(x)), self.gamma_2)

    def _mlp_recomputing_gelu(self, x: Tensor) -> Tensor:
        """The MLP, whose backward pass computes the output of GELU again.

        The second product ends the region, and PyTorch's recomputation stops before it.
        """
        mlp = self.mlp

        def gelu_and_product(hidden: Tensor) -> Tensor:
            return mlp.fc2(mlp.norm(mlp.drop1(mlp.act(hidden))))

        return mlp.drop2(recompute(gelu_and_product, mlp.fc1(x), random=mlp.drop1.p > 0))

    def _add(self, x: Tensor, branch: Tensor, gamma: Tensor | None) -> Tensor:
        branch = self.drop_path(branch)
        if gamma is None:
            return x + branch
        if branch.dtype == x.dtype or torch.compiler.is_compiling():  # a compiler fuses the casts
            return torch.addcmul(x, gamma, branch)
        return _AddScaledHalf.apply(x, gamma, branch)

    def init_weights(self, depth: int, std: float = 0.02) -> None:
        """Draws truncated normal weights, smaller in the last layer of each branch.

        Those are divided by sqrt(2 * depth), where ``depth`` counts the blocks from 1 (BEiT
        section 2.5).
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


class _AddScaledHalf(torch.autograd.Function):
    """``x + gamma * branch`` in float32, for a branch in half precision.

    Autocast would copy the branch to float32 first, and keep that copy for the gradient of gamma.
    Here the element-wise kernels convert the branch as they read it, and its gradient as they
    write it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, branch: Tensor) -> Tensor:
        ctx.save_for_backward(gamma, branch)
        with torch.autocast(x.device.type, enabled=False):
            return torch.addcmul(x, gamma, branch)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        gamma, branch = ctx.saved_tensors
        with torch.autocast(grad.device.type, enabled=False):
            grad_branch = torch.mul(grad, gamma, out=torch.empty_like(branch))
            grad_gamma = (grad * branch).flatten(0, -2).sum(dim=0)
        return grad, grad_gamma, grad_branch
