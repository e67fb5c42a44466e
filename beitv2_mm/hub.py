"""The models of this package in mmpretrain's own list: ``mmpretrain.list_models('beitv2_base')``.

mmpretrain asks no plugin for its models, and importing it takes seconds, so nothing is done before
it is imported, and no metafile is read before it is asked for a model.
"""

import functools
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from beitv2_mm.paths import config_root


def register() -> None:
    """Extend mmpretrain's hub: now if it is imported already, else as soon as it is."""
    after_import('mmpretrain.apis.model', extend)


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


def extend(module: ModuleType) -> None:
    """Add the models to ``ModelHub`` and let ``get_model`` build them by `beitv2_mm.get_model`,
    which reads official checkpoints."""
    hub, theirs = module.ModelHub, module.get_model
    if hasattr(hub, 'beitv2_mm_names'):
        return
    hub.beitv2_mm_names = set()
    register_theirs = hub._register_mmpretrain_models

    def register_all() -> None:
        register_theirs()
        if not hub.beitv2_mm_names:
            before = set(hub._models_dict)
            root = config_root()
            hub.register_model_index(root / 'model-index.yml', config_prefix=root)
            hub.beitv2_mm_names = set(hub._models_dict) - before

    @functools.wraps(theirs)
    def get_model(model: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(model, str):
            register_all()
            if model.lower() in hub.beitv2_mm_names:
                from beitv2_mm.apis import get_model as ours

                return ours(model, *args, **kwargs)
        return theirs(model, *args, **kwargs)

    hub._register_mmpretrain_models = staticmethod(register_all)
    for name, loaded in list(sys.modules.items()):  # those that have imported the function by name
        if name.split('.')[0] == 'mmpretrain' and getattr(loaded, 'get_model', None) is theirs:
            vars(loaded)['get_model'] = get_model
    vars(module)['get_model'] = get_model
