"""What today's PyTorch, setuptools, transformers and mmcv-lite need from the OpenMMLab libraries.

One module a host, one function a fix. A function first probes whether the installed stack needs
the fix and returns True when it took effect, so that `active` can be shown in a bug report; a
second call finds nothing to do. ``import beitv2_mm`` applies them as soon as mmengine is imported.
"""

from beitv2_mm.compat.after_import import after_import

_active: dict[str, str] = {}


def active() -> list[str]:
    """Names of the fixes that this process runs with, in the order of their application."""
    return list(_active)


def reasons() -> dict[str, str]:
    """What each fix at work does, in a line."""
    return dict(_active)


def apply() -> list[str]:
    """Apply every fix that the stack needs and is not yet applied; return ``active()``."""
    from beitv2_mm.compat import mmcv_ops, mmengine_, mmpretrain_  # they import mmengine

    fixes = (
        mmengine_.resume_weights_only,
        mmengine_.refuse_code,
        mmcv_ops.missing_compiled_ops,
        mmpretrain_.mmpretrain_without_multimodal,
        mmengine_.launch_without_gpu,
        mmengine_.explain_setuptools,
        mmengine_.deepspeed_without_onebit,
    )
    for fix in fixes:
        if fix.__name__ not in _active and fix():
            _active[fix.__name__] = (fix.__doc__ or '').split('\n')[0]
    after_import('mmpretrain.apis.model', mmpretrain_.list_our_models)
    return active()
