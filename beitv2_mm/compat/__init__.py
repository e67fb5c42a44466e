"""Fixes for the OpenMMLab libraries with today's PyTorch, setuptools, transformers and mmcv-lite.

There is one module for each library and one function for each fix. A function first probes whether
the installed versions need the fix, and returns whether it took effect; a second call does nothing.
``import beitv2_mm`` applies all fixes as soon as mmengine is imported.
"""

from beitv2_mm.compat.after_import import after_import

_active: dict[str, str] = {}


def active() -> list[str]:
    """Names of the applied fixes, in the order of their application."""
    return list(_active)


def reasons() -> dict[str, str]:
    """The name of each applied fix, and a line about what it does."""
    return dict(_active)


def apply() -> list[str]:
    """Applies every fix that is needed and not yet applied; returns ``active()``."""
    from beitv2_mm.compat import mmcv_ops, mmengine_, mmpretrain_  # they import mmengine

    fixes = (
        mmengine_.resume_weights_only,
        mmengine_.refuse_code,
        mmcv_ops.missing_compiled_ops,
        mmpretrain_.mmpretrain_without_multimodal,
        mmpretrain_.isin_for_in1d,
        mmengine_.launch_without_gpu,
        mmengine_.explain_setuptools,
        mmengine_.format_config_once,
        mmengine_.deepspeed_without_onebit,
    )
    for fix in fixes:
        if fix.__name__ not in _active and fix():
            _active[fix.__name__] = (fix.__doc__ or '').split('\n')[0]
    after_import('mmpretrain.apis.model', mmpretrain_.list_our_models)
    return active()
