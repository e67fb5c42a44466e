"""Activation recomputation: the backward pass recomputes activations that were not stored.

All of it rests on PyTorch's non-reentrant ``checkpoint``, which stores only the inputs of a region
of the forward pass; the backward pass runs the region again, up to the last tensor that a gradient
needs. ``with_cp=True`` makes a whole block such a region. ``with_cp='selective'`` takes only GELU
and the matrix product after it; since the product ends the region, it is not computed twice.
A compiled block is one region even with 'selective', because a compiler recomputes element-wise
operations inside kernels that it runs anyway. The compiled region does not stop early, so
`recompute_except_products` lists the results that have to be stored.
"""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.torch_version import TorchVersion
from torch.utils import checkpoint

WithCp: TypeAlias = bool | Literal['selective']
# Earlier versions were not tried or do not work: some cannot compile such a list, and some ignore
# it beneath DDP.
COMPILES_SELECTIVE = TorchVersion(torch.__version__) >= TorchVersion('2.14')
STORED_OPS = {
    f'aten::{op}' for op in ('mm', 'addmm', 'bmm', 'baddbmm', '_softmax', '_safe_softmax')
}


def recompute(function: Callable[..., Tensor], *args: Any, random: bool = True) -> Tensor:
    """Calls ``function`` and stores only ``args`` for its backward pass.

    With ``random``, the second run draws the same random numbers as the first; a function that
    draws none does not need this.
    """
    output: Tensor = checkpoint.checkpoint(
        function, *args, use_reentrant=False, preserve_rng_state=random
    )
    return output


def recompute_except_products(function: Callable[..., Tensor], *args: Any) -> Tensor:
    """Calls ``function`` while a compiler traces it, and stores only expensive results.

    These are the results of matrix products, of softmax and of operations that draw random numbers.
    Before PyTorch 2.14, all results are stored.
    """
    if not COMPILES_SELECTIVE:
        return function(*args)
    output: Tensor = checkpoint.checkpoint(
        function, *args, use_reentrant=False, context_fn=_store_products
    )
    return output


def _store_products() -> Any:
    return checkpoint.create_selective_checkpoint_contexts(_policy)


def _policy(context: Any, op: torch._ops.OpOverload, *args: Any, **kwargs: Any) -> Any:
    # Every fused attention counts as random, because it could apply dropout.
    is_random = torch.Tag.nondeterministic_seeded in op.tags
    if op.name() in STORED_OPS or is_random:
        return checkpoint.CheckpointPolicy.MUST_SAVE
    return checkpoint.CheckpointPolicy.PREFER_RECOMPUTE
