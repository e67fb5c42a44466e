"""A stand-in for the compiled operators that mmseg and mmdet import and mmcv-lite lacks."""

import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NoReturn

from beitv2_mm.compat.after_import import StandIn, stands_in


def _missing_op(name: str) -> Callable[..., NoReturn]:
    if name.startswith('__'):
        raise AttributeError(name)

    def missing(*args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError(
            f"'{name}' is a compiled op of mmcv that mmcv-lite does not have: "
            'install full mmcv (>=2.0.0rc4, <2.2.0) in place of mmcv-lite to use it'
        )

    missing.__name__ = name
    return missing


def _fill(module: ModuleType) -> None:
    from beitv2_mm.compat import compiled_ops

    for name in compiled_ops.OPS:
        setattr(module, name, getattr(compiled_ops, name))
    # Diagnostics (mmcv.collect_env) call these two functions and need an answer, not an error.
    for name in ('get_compiler_version', 'get_compiling_cuda_version'):
        setattr(module, name, lambda: 'n/a (mmcv-lite)')
    module.__getattr__ = _missing_op  # type: ignore[method-assign]


def missing_compiled_ops() -> bool:
    """Make ``mmcv.ops``, and so mmseg and mmdet, importable with mmcv-lite.

    Why: their models always import ``mmcv.ops``, mmcv-lite has no compiled ``mmcv._ext``, and
    building full mmcv from source takes half an hour. Python finds the stand-in after any real
    module. It has the ops of `compiled_ops`; the others raise an error with their name when they
    are called. This function does not import mmcv.
    Until: mmseg (> 1.2.2) imports compiled ops lazily, or mmcv ships wheels for current PyTorch.
    """
    mmcv = None if stands_in('mmcv._ext') else find_spec('mmcv')
    if mmcv is None or PathFinder.find_spec('mmcv._ext', mmcv.submodule_search_locations):
        return False
    sys.meta_path.append(StandIn({'mmcv._ext'}, _fill))
    return True
