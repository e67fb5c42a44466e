"""Act on a module as soon as it is imported, without importing it."""

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType


def after_import(name: str, action: Callable[[ModuleType], None]) -> None:
    """Call ``action(module)``: now if the module is imported already, else as soon as it is."""
    if name in sys.modules:
        action(sys.modules[name])
    elif not any(isinstance(finder, _Once) and finder.name == name for finder in sys.meta_path):
        sys.meta_path.insert(0, _Once(name, action))


class _Once(MetaPathFinder):
    """Finds one module as Python would, and calls the action when it has been executed.

    Some only look whether a module is there, so that it is found several times.
    """

    def __init__(self, name: str, action: Callable[[ModuleType], None]) -> None:
        self.name, self.action = name, action
        self._looking = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name or self._looking:
            return None
        self._looking = True
        try:
            spec = find_spec(fullname)
        finally:
            self._looking = False
        if spec is not None and spec.loader is not None:
            _run_after(spec.loader, self._found)
        return spec

    def _found(self, module: ModuleType) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            self.action(module)


def _run_after(loader: Loader, action: Callable[[ModuleType], None]) -> None:
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        action(module)

    loader.exec_module = exec_module  # type: ignore[method-assign]
