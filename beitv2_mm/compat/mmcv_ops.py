"""What mmseg needs beside mmcv-lite, which has no compiled operators."""

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NoReturn


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


class _CompiledOps(MetaPathFinder, Loader):
    """Finds ``mmcv._ext`` where no other finder does; any op is there and fails when called."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname == 'mmcv._ext' else None

    def exec_module(self, module: ModuleType) -> None:
        # Diagnostics (mmcv.collect_env) ask these two: an answer, not an error.
        for name in ('get_compiler_version', 'get_compiling_cuda_version'):
            setattr(module, name, lambda: 'n/a (mmcv-lite)')
        module.__getattr__ = _missing_op  # type: ignore[method-assign]


def missing_compiled_ops() -> bool:
    """Make ``mmcv.ops`` (and so all of mmseg) importable beside mmcv-lite.

    Why: mmseg's models import ``mmcv.ops`` eagerly, mmcv-lite has no compiled ``mmcv._ext``, and
    full mmcv is a source build of half an hour. A stand-in module is found last, after any real
    one, and its ops raise by name when called. mmcv itself is not imported here.
    Until: mmseg (> 1.2.2) imports compiled ops lazily, or mmcv ships wheels for current PyTorch.
    """
    if any(isinstance(finder, _CompiledOps) for finder in sys.meta_path):
        return False
    mmcv = find_spec('mmcv')
    if mmcv is None or PathFinder.find_spec('mmcv._ext', mmcv.submodule_search_locations):
        return False
    sys.meta_path.append(_CompiledOps())
    return True
