"""Columns of a table by index, (R, C) and (N,) -> (R, N): a bias of millions of elements."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LARGE_BIAS = 2**22  # elements from which a bias is made in half precision at once, under autocast


def needs_grad_on_cpu(tensor: Tensor) -> bool:
    """Whether the tensor lies on a CPU and autograd records what is computed from it."""
    return bool(tensor.device.type == 'cpu' and tensor.requires_grad and torch.is_grad_enabled())


@torch.library.custom_op('beitv2_mm::select_columns', mutates_args=())
def select_columns(table: Tensor, index: Tensor) -> Tensor:
    """``table.index_select(1, index)`` as an operator that a compiler does not fuse.

    On a CPU, Inductor would repeat the look-up of every element in each loop that uses the result,
    three times in the softmax of every block: 9 ms a block instead of 2 (base, batch 4 at 224 px).
    """
    return table.index_select(1, index)


@select_columns.register_fake
def _(table: Tensor, index: Tensor) -> Tensor:
    return table.new_empty(table.shape[0], index.shape[0])  # len() would fix a symbol


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    table, index = inputs
    ctx.num_columns = table.shape[1]
    ctx.save_for_backward(index)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    (index,) = ctx.saved_tensors
    return grad.new_zeros(grad.shape[0], ctx.num_columns).index_add(1, index, grad), None


select_columns.register_autograd(_backward, setup_context=_setup_context)


class _GatherInHalf(torch.autograd.Function):
    """A bias in half precision, whose gradient is summed up in the table's own.

    Casting the gathered bias would need three times the memory for a moment, 1.1 GiB for one block
    of base at 1024 px; summing up its gradient in half precision would lose most of it.
    """

    @staticmethod
    def forward(ctx: Any, by_head: Tensor, index: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(index)
        ctx.table = by_head.shape, by_head.dtype
        return by_head.to(dtype).index_select(1, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        shape, dtype = ctx.table
        table = grad.new_zeros(shape, dtype=dtype)
        for head, part in zip(table, grad, strict=True):  # one copy in full precision at a time
            head.index_add_(0, index, part.to(dtype))
        return table, None, None


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """The precision of products under autocast; None without it."""
    enabled = torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if enabled else None


def gather_columns(table: Tensor, index: Tensor) -> Tensor:
    """``table[:, index]``; in the precision of autocast where it has more than `LARGE_BIAS`
    elements."""
    if torch.compiler.is_compiling():  # a compiler casts as it gathers
        return (
            select_columns(table, index)
            if needs_grad_on_cpu(table)
            else table.index_select(1, index)
        )
    dtype = autocast_dtype(table.device)
    if dtype is not None and len(table) * index.numel() > LARGE_BIAS:
        bias: Tensor = _GatherInHalf.apply(table, index, dtype)
        return bias
    return table.index_select(1, index)
