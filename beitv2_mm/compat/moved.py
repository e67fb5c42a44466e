"""Modules under their former names, which version 0.2 removes."""

import sys
import warnings
from importlib import import_module
from types import ModuleType

from beitv2_mm.compat.after_import import StandIn

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


def _fill(module: ModuleType) -> None:
    new = MOVED[module.__name__]
    warnings.warn(
        f'{module.__name__} is now {new}; version 0.2 removes the old name',
        DeprecationWarning,
        stacklevel=3,
    )
    content = vars(import_module(new)).items()
    kept = {'__all__', '__getattr__'}  # the latter imports a name when it is asked for
    vars(module).update({k: value for k, value in content if k in kept or not k.startswith('__')})


def find_moved_modules() -> None:
    """Lets Python find the modules of `MOVED`; to be called once."""
    sys.meta_path.insert(0, StandIn(MOVED, _fill))
