"""Mixed precision where there is an accelerator, full precision where there is none."""

from typing import Any

from mmengine.optim import AmpOptimWrapper, OptimWrapper

from beitv2_mm.compat import has_accelerator
from beitv2_mm.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
def mixed_precision(
    dtype: str = 'float16',
    loss_scale: str | float | dict | None = None,
    use_fsdp: bool = False,
    **kwargs: Any,
) -> OptimWrapper:
    """AmpOptimWrapper, or OptimWrapper on CPU, where mmengine's would refuse to be built.

    Args:
        dtype: 'float16' or 'bfloat16'.
        loss_scale: of AmpOptimWrapper; None is 'dynamic' for float16 and 1 for bfloat16, whose
            range is float32's.
        use_fsdp: of AmpOptimWrapper; BlockShardedStrategy sets it.
        kwargs: of OptimWrapper.
    """
    if not has_accelerator():
        return OptimWrapper(**kwargs)
    if loss_scale is None:
        loss_scale = 'dynamic' if dtype == 'float16' else 1.0
    return AmpOptimWrapper(loss_scale=loss_scale, dtype=dtype, use_fsdp=use_fsdp, **kwargs)
