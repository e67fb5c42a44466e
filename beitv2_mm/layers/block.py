"""Pre-norm transformer block: (B, N, D) -> (B, N, D), or (B, M, D) where M tokens are read."""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
from mmengine.utils import digit_version
from timm.layers import DropPath, Mlp
from torch import Tensor, nn
from torch.utils import checkpoint

from beitv2_mm.layers.attention import Attention, Read, read_tokens
from beitv2_mm.layers.position import Grid

LAYER_NORM_EPS = 1e-6
WithCp: TypeAlias = bool | Literal['selective']
# Versions before were not tried; some lack it, some refuse it or lose it beneath DDP.
COMPILES_SELECTIVE = digit_version(torch.__version__) >= digit_version('2.14')
SAVED_OPS = {f'aten::{op}' for op in ['mm', 'addmm', 'bmm', 'baddbmm', '_softmax', '_safe_softmax']}


class Block(nn.Module):
    """``x + gamma_1 * drop(attn(norm1(x)))``, then ``x + gamma_2 * drop(mlp(norm2(x)))``.

    ``layer_scale`` is the start of gamma_1 and gamma_2; None or 0 leaves them out. Each branch is
    dropped once, with rate ``drop_path``.

    ``with_cp`` saves memory in training: True keeps the block's input alone and computes the rest
    again in the backward pass; 'selective' does so only with what costs next to nothing, norms and
    GELU, nearly a third of what is kept otherwise.
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
    ) -> None:
        super().__init__()
        if with_cp not in (False, True, 'selective'):
            raise ValueError(f"with_cp is False, True or 'selective', but {with_cp!r} was given.")
        self.with_cp = with_cp
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
        if self.with_cp and self.training and torch.is_grad_enabled():
            if self.with_cp != 'selective':
                return checkpoint.checkpoint(self._plain, x, grid, bias, read, use_reentrant=False)
            if not torch.compiler.is_compiling():
                return self._selective(x, grid, bias, read)
            if COMPILES_SELECTIVE:  # a compiler left alone saves what norms and GELU give
                return checkpoint.checkpoint(
                    self._plain,
                    x,
                    grid,
                    bias,
                    read,
                    use_reentrant=False,
                    context_fn=selective_context_fn,
                )
        return self._plain(x, grid, bias, read)

    def _plain(self, x: Tensor, grid: Grid, bias: Tensor | None, read: Read) -> Tensor:
        # No name for what a branch gives: it would live as long as the other one runs.
        x = self._add(
            read_tokens(x, read), self.attn(self.norm1(x), grid, bias, read), self.gamma_1
        )
        return self._add(x, self.mlp(self.norm2(x)), self.gamma_2)

    def _add(self, x: Tensor, branch: Tensor, gamma: Tensor | None) -> Tensor:
        branch = self.drop_path(branch)
        return x + branch if gamma is None else torch.addcmul(x, gamma, branch)

    def _selective(self, x: Tensor, grid: Grid, bias: Tensor | None, read: Read) -> Tensor:
        """`_plain`, of which norms and GELU are computed again."""
        attn, mlp = self.attn, self.mlp
        q, k, v = _forget_between(self.norm1, lambda x: attn.project(x, read), x)
        out = attn.attend(q, k, v, attn.position_bias(grid, bias), read)
        del q, k, v
        x = self._add(read_tokens(x, read), attn.proj_drop(attn.proj(out)), self.gamma_1)
        hidden = _forget_between(self.norm2, mlp.fc1, x)
        if mlp.drop1.p:  # another recomputation would drop others
            out = mlp.fc2(mlp.drop1(mlp.act(hidden)))
        else:
            out = _forget_between(mlp.act, mlp.fc2, hidden)
        return self._add(x, mlp.drop2(out), self.gamma_2)

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


def _selective_policy(context: Any, op: torch._ops.OpOverload, *args: Any, **kwargs: Any) -> Any:
    # Random numbers, and all fused attentions, which could drop something.
    seeded = torch.Tag.nondeterministic_seeded in op.tags
    policy = checkpoint.CheckpointPolicy
    return policy.MUST_SAVE if op.name() in SAVED_OPS or seeded else policy.PREFER_RECOMPUTE


def selective_context_fn() -> Any:
    """The choice of 'selective', for `torch.utils.checkpoint.checkpoint`."""
    return checkpoint.create_selective_checkpoint_contexts(_selective_policy)


def _forget_between(
    cheap: Callable[[Tensor], Tensor], product: Callable[[Tensor], Any], x: Tensor
) -> Any:
    """``product(cheap(x))``, where backward computes ``cheap(x)`` again instead of keeping it.

    `torch.utils.checkpoint` would do, at five times the cost for the host (2.8 ms a block): it
    saves and restores random numbers and calls the product again to find out what it keeps.
    """
    device = x.device.type
    enabled = torch.is_autocast_enabled(device)
    y = cheap(x)
    dtype = torch.get_autocast_dtype(device) if enabled else y.dtype
    y = y.to(dtype)  # as the product would: this is what it keeps
    address, size, x = y.data_ptr(), y.numel(), x.detach()

    def pack(kept: Tensor) -> Tensor | torch.Size:
        same = kept.data_ptr() == address and kept.numel() == size and kept.is_contiguous()
        return kept.shape if same else kept

    def unpack(kept: Tensor | torch.Size) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        with torch.no_grad(), torch.autocast(device, dtype, enabled=enabled):
            return cheap(x).to(dtype).view(kept)

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        return product(y)
