"""Modules under the names that version 0.1 gave them; they go in version 0.2."""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    f'beitv2_mm.{old}': f'beitv2_mm.{new}'
    for old, new in {
        'download': 'compat.download',
        'engine.knn': 'engine.metrics.knn',
        'environment': 'compat.environment',
        'errors': 'engine.errors',
        'export': 'apis.export',
        'files': 'checkpoint.atomic',
        'folder': 'jobs',
        'hub': 'compat.mmpretrain_',
        'launch': 'engine.launch',
        'quickstart': 'jobs.quickstart',
        'resume': 'engine.resume',
        'safe_load': 'compat.safe_load',
    }.items()
}


class _Moved(MetaPathFinder, Loader):
    """Fills a module of an old name with what the new one has, and says so."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        new = MOVED[module.__name__]
        warnings.warn(
            f'{module.__name__} is now {new}; the old name goes in version 0.2',
            DeprecationWarning,
            stacklevel=2,
        )
        content = vars(import_module(new)).items()
        vars(module).update({name: value for name, value in content if not name.startswith('__')})


def find_moved_modules() -> None:
    """Let Python find `MOVED`; to be called once."""
    sys.meta_path.insert(0, _Moved())
