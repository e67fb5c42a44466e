"""BEiT v2 for OpenMMLab: tokenizer, masked image modelling and fine-tuning on today's PyTorch.

Importing the package imports neither PyTorch nor mmengine. As soon as one of them is imported,
before or after, what the installed stack needs is applied (``beitv2_mm.compat.active()`` lists it).
Models and datasets are imported by the configs, or by the registries when a config names one of
them, and the model zoo when it is asked for. The models join mmpretrain's list when mmpretrain is
imported (``beitv2_mm.hub``).
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from beitv2_mm import hub

if TYPE_CHECKING:
    from beitv2_mm import compat
    from beitv2_mm.apis import get_model, list_models

__version__ = '0.1.0'
__all__ = ['__version__', 'compat', 'get_model', 'list_models']


def _mend(imported: ModuleType) -> None:
    # PyTorch may be imported by a half imported mmengine, whose end is waited for
    if imported.__name__ == 'mmengine' or 'mmengine' not in sys.modules:
        import_module('beitv2_mm.compat')


if 'mmengine' in sys.modules:
    import_module('beitv2_mm.compat')
else:
    hub.after_import('mmengine', _mend)
    hub.after_import('torch', _mend)
hub.register()


def __getattr__(name: str) -> Any:
    if name == 'compat':
        return import_module('beitv2_mm.compat')
    if name in ('get_model', 'list_models'):
        from beitv2_mm import apis

        return getattr(apis, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
