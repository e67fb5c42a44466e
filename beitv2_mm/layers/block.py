"""Pre-norm transformer block: (B, N, D) -> (B, N, D), or (B, M, D) where M tokens are read."""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
from mmengine.utils import digit_version
from timm.layers import DropPath, Mlp
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
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

    ``with_cp`` saves memory in training by recomputation in the backward pass. True keeps only the
    block's input and computes everything again. 'selective' computes only GELU again: its output is
    a fifth of what a block keeps in half precision, and one element-wise pass restores it.
    A compiled block also computes the norms again, inside kernels that it runs anyway.
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
        """Tokens after the block. Those that are not ``read`` serve as keys and values only."""
        if self.with_cp and self.training and torch.is_grad_enabled():
            if self.with_cp != 'selective':
                return checkpoint.checkpoint(self._plain, x, grid, bias, read, use_reentrant=False)
            if not torch.compiler.is_compiling():
                return self._run(x, grid, bias, read, self._mlp_without_activation)
            if COMPILES_SELECTIVE:  # left to itself, a compiler saves the outputs of norms and GELU
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
        return self._run(x, grid, bias, read, self.mlp)

    def _run(
        self,
        x: Tensor,
        grid: Grid,
        bias: Tensor | None,
        read: Read,
        mlp: Callable[[Tensor], Tensor],
    ) -> Tensor:
        # Do not bind the output of a branch: it would stay alive during the other branch.
        x = self._add(
            read_tokens(x, read), self.attn(self.norm1(x), grid, bias, read), self.gamma_1
        )
        return self._add(x, mlp(self.norm2(x)), self.gamma_2)

    def _add(self, x: Tensor, branch: Tensor, gamma: Tensor | None) -> Tensor:
        branch = self.drop_path(branch)
        if gamma is None:
            return x + branch
        if branch.dtype == x.dtype or torch.compiler.is_compiling():  # a compiler fuses the casts
            return torch.addcmul(x, gamma, branch)
        return _AddScaledHalf.apply(x, gamma, branch)

    def _mlp_without_activation(self, x: Tensor) -> Tensor:
        """The MLP, whose backward pass computes the output of GELU again."""
        mlp = self.mlp
        if mlp.drop1.p:  # another run of dropout would draw another mask
            return mlp(x)
        return mlp.drop2(_recompute_between(mlp.act, mlp.fc2, mlp.fc1(x)))

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


def _recompute_between(
    cheap: Callable[[Tensor], Tensor], product: Callable[[Tensor], Tensor], x: Tensor
) -> Tensor:
    """``product(cheap(x))``, where backward computes ``cheap(x)`` again instead of keeping it.

    The saved-tensor hooks recognise the output of ``cheap`` by its address among the tensors that
    ``product`` saves. `torch.utils.checkpoint` would do the same at five times the cost for the
    host: it saves and restores random states, and calls ``product`` again to see what it saves.
    """
    y = cheap(x)
    address, size, x = y.data_ptr(), y.numel(), x.detach()

    def pack(saved: Tensor) -> Tensor | torch.Size:
        same = saved.data_ptr() == address and saved.numel() == size and saved.is_contiguous()
        return saved.shape if same else saved

    def unpack(saved: Tensor | torch.Size) -> Tensor:
        if isinstance(saved, Tensor):
            return saved
        with torch.no_grad():
            return cheap(x).view(saved)

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        return product(y)
