"""Acts on modules when they are imported, and provides stand-ins for missing modules."""

import sys
from collections.abc import Callable, Collection, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

Action = Callable[[ModuleType], None]


def after_import(name: str, action: Action) -> None:
    """Calls ``action(module)`` now if the module is imported already, else after its import."""
    if name in sys.modules:
        action(sys.modules[name])
    elif not any(isinstance(finder, _Once) and finder.name == name for finder in sys.meta_path):
        sys.meta_path.insert(0, _Once(name, action))


class _Once(MetaPathFinder):
    """Finds one module as Python does, and calls the action after the module was executed.

    A module may be found several times, because some code only checks whether it exists.
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
    """Provides modules that do not exist, with the content that ``fill`` gives them.

    Code that only checks whether a module exists does not call ``fill``, which may raise.
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
