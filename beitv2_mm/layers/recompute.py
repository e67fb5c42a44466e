"""Activation recomputation: the backward pass computes again what the forward pass did not keep.

Everything rests on PyTorch's non-reentrant ``checkpoint``: it keeps only the arguments of a region
and runs the region again in the backward pass, up to the last tensor that a gradient needs.
``with_cp=True`` makes a whole block such a region. ``with_cp='selective'`` takes only GELU and the
product after it, and because that product is the end of the region, it is not computed twice.
A compiler does not stop early, but it recomputes all element-wise operations of a block inside
kernels that it runs anyway: a compiled block is one region, and `recompute_except_products` states
which of its results are kept.
"""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.torch_version import TorchVersion
from torch.utils import checkpoint

WithCp: TypeAlias = bool | Literal['selective']
# Earlier versions were not tried or failed: some do not compile a policy for what is kept, and
# some lose it beneath DDP.
COMPILES_SELECTIVE = TorchVersion(torch.__version__) >= TorchVersion('2.14')
KEPT_OPS = {f'aten::{op}' for op in ('mm', 'addmm', 'bmm', 'baddbmm', '_softmax', '_safe_softmax')}


def recompute(function: Callable[..., Tensor], *args: Any, random: bool = True) -> Tensor:
    """Calls ``function`` and keeps only ``args`` for its backward pass.

    With ``random``, the second run draws the same random numbers as the first; a function that
    draws none does not need this.
    """
    output: Tensor = checkpoint.checkpoint(
        function, *args, use_reentrant=False, preserve_rng_state=random
    )
    return output


def recompute_except_products(function: Callable[..., Tensor], *args: Any) -> Tensor:
    """As `recompute`, for a graph that is being compiled; keeps what is expensive.

    These are the results of matrix products, of softmax and of everything that draws random
    numbers. Before PyTorch 2.14 all results are kept.
    """
    if not COMPILES_SELECTIVE:
        return function(*args)
    output: Tensor = checkpoint.checkpoint(
        function, *args, use_reentrant=False, context_fn=_keep_products
    )
    return output


def _keep_products() -> Any:
    return checkpoint.create_selective_checkpoint_contexts(_policy)


def _policy(context: Any, op: torch._ops.OpOverload, *args: Any, **kwargs: Any) -> Any:
    # Every fused attention counts as random, because it could apply dropout.
    is_random = torch.Tag.nondeterministic_seeded in op.tags
    if op.name() in KEPT_OPS or is_random:
        return checkpoint.CheckpointPolicy.MUST_SAVE
    return checkpoint.CheckpointPolicy.PREFER_RECOMPUTE
