"""Act on modules as they are imported, and stand in for modules that are missing."""

import sys
from collections.abc import Callable, Collection, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

Action = Callable[[ModuleType], None]


def after_import(name: str, action: Action) -> None:
    """Call ``action(module)``: now if the module is imported already, else as soon as it is."""
    if name in sys.modules:
        action(sys.modules[name])
    elif not any(isinstance(finder, _Once) and finder.name == name for finder in sys.meta_path):
        sys.meta_path.insert(0, _Once(name, action))


class _Once(MetaPathFinder):
    """Finds one module as Python would, and calls the action when it has been executed.

    A module may be found several times, because some code only looks whether it exists.
    """

    def __init__(self, name: str, action: Action) -> None:
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
            loader, execute = spec.loader, spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                    self.action(module)

            loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


class StandIn(MetaPathFinder, Loader):
    """Provides modules that ``fill`` makes, in ``sys.meta_path``.

    Code that only looks whether a module exists does not call ``fill``, which may raise.
    """

    def __init__(self, names: Collection[str], fill: Action) -> None:
        self.names, self.fill = names, fill

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in self.names else None

    def exec_module(self, module: ModuleType) -> None:
        self.fill(module)


def stands_in(name: str) -> bool:
    """Whether a stand-in for a module is installed."""
    return any(isinstance(found, StandIn) and name in found.names for found in sys.meta_path)
