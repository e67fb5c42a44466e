"""Mixed precision on the pretended device: autocast, and mmengine's wrapper with a GradScaler.

The lists of operators are shortened from PyTorch's for CUDA (aten/src/ATen/autocast_mode.h).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.runner import amp, loops
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from support.pretend_device import NAME

CAST = (torch.float32, torch.bfloat16, torch.float16)  # float64 stays as it is
HALF = """linear matmul mm bmm addmm baddbmm conv2d conv_transpose2d.input
    scaled_dot_product_attention"""
FULL = """layer_norm group_norm native_layer_norm cosine_similarity mse_loss l1_loss smooth_l1_loss
    cross_entropy_loss nll_loss nll_loss_nd exp log pow.Tensor_Scalar rsqrt norm.Scalar softmax.int
    log_softmax.int sum sum.dim_IntList cumsum cdist"""
WIDEST = 'addcmul addcdiv dot grid_sampler index_put scatter_add'


def _half(tensors: list[Tensor]) -> torch.dtype:
    return torch.get_autocast_dtype(NAME)


def _full(tensors: list[Tensor]) -> torch.dtype:
    return torch.float32


def _widest(tensors: list[Tensor]) -> torch.dtype:
    dtypes = {tensor.dtype for tensor in tensors}
    return torch.float32 if torch.float32 in dtypes else next(iter(dtypes))


def _cast(op: Any, choose: Callable, *args: Any, **kwargs: Any) -> Any:
    with torch._C._ExcludeDispatchKeyGuard(_AUTOCAST):
        leaves, tree = tree_flatten((args, kwargs))
        floats = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.dtype in CAST]
        dtype = choose(floats) if floats else None
        cast = [leaf.to(dtype) if any(leaf is t for t in floats) else leaf for leaf in leaves]
        args, kwargs = tree_unflatten(cast, tree)
        return op(*args, **kwargs)


def _register() -> list[torch.library.Library]:
    others = torch.library.Library('_', 'IMPL')
    others.fallback(torch.library.fallthrough_kernel, 'AutocastPrivateUse1')
    library = torch.library.Library('aten', 'IMPL')
    for names, choose in ((HALF, _half), (FULL, _full), (WIDEST, _widest)):
        for name in names.split():
            packet, _, overload = name.partition('.')
            op = getattr(getattr(torch.ops.aten, packet), overload or 'default')
            library.impl(op, partial(_cast, op, choose), 'AutocastPrivateUse1')
    return [others, library]


_AUTOCAST = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)
LIBRARIES = _register()


@contextmanager
def mixed_precision() -> Iterator[None]:
    """Inside, mmengine's AmpOptimWrapper and autocast know the pretended device."""

    def autocast(
        device_type: str | None = None, enabled: bool = True, dtype: Any = None, **kwargs: Any
    ) -> torch.autocast:
        return torch.autocast(device_type or NAME, dtype or torch.float16, enabled, **kwargs)

    scaler = partial(torch.amp.GradScaler, NAME)
    with (
        patch.object(amp_optimizer_wrapper, 'is_cuda_available', lambda: True),
        patch.object(amp_optimizer_wrapper, 'GradScaler', scaler),
        patch.object(amp, 'autocast', autocast),
        patch.object(loops, 'autocast', autocast),
    ):
        yield
