"""Mixed precision where there is an accelerator, full precision where there is none."""

from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.optim import AmpOptimWrapper, OptimWrapper

from beitv2_mm.compat.mmengine_ import has_accelerator
from beitv2_mm.registry import OPTIM_WRAPPERS


def supports_bfloat16() -> bool:
    """Whether the GPU of this process computes in bfloat16; older ones emulate it slowly."""
    return not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)


@OPTIM_WRAPPERS.register_module()
def mixed_precision(
    dtype: str = 'float16',
    loss_scale: str | float | dict | None = None,
    use_fsdp: bool = False,
    **kwargs: Any,
) -> OptimWrapper:
    """AmpOptimWrapper, or on a CPU, where mmengine refuses to build one, OptimWrapper.

    Args:
        dtype: 'float16' or 'bfloat16'; a GPU without bfloat16 takes float16, and the log says so.
        loss_scale: see AmpOptimWrapper; None means 'dynamic' for float16, and 1 for bfloat16, which
            has the range of float32.
        use_fsdp: see AmpOptimWrapper; BlockShardedStrategy sets it.
        kwargs: arguments of OptimWrapper.
    """
    if not has_accelerator():
        return OptimWrapper(**kwargs)
    if dtype == 'bfloat16' and not supports_bfloat16():
        print_log(
            'this GPU has no bfloat16 (compute capability 8.0): float16 with a dynamic loss scale '
            'is used instead',
            'current',
        )
        dtype, loss_scale = 'float16', None
    if loss_scale is None:
        loss_scale = 'dynamic' if dtype == 'float16' else 1.0
    return AmpOptimWrapper(loss_scale=loss_scale, dtype=dtype, use_fsdp=use_fsdp, **kwargs)
