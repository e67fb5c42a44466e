"""BEiT v2 for OpenMMLab: tokenizer, masked image modelling and fine-tuning on today's PyTorch.

Importing the package imports neither PyTorch nor mmengine. As soon as one of them is imported,
before or after, what the installed stack needs is applied (``beitv2_mm.compat.active()`` lists it),
and the models join mmpretrain's list. Models and datasets are imported by the configs, or by the
registries when a config names one of them, and the model zoo when it is asked for.
"""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from beitv2_mm import compat
from beitv2_mm.compat.after_import import after_import
from beitv2_mm.compat.moved import find_moved_modules

if TYPE_CHECKING:
    from beitv2_mm.apis import get_model, list_models

__version__ = '0.1.0'
__all__ = ['__version__', 'compat', 'config_root', 'get_model', 'list_models']


def config_root() -> Path:
    """The folder that holds model-index.yml, configs/ and tools/.

    Raises:
        FileNotFoundError: the package was installed without them.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / '.mim', package.parent):  # an installed package's, a clone's
        if (folder / 'model-index.yml').is_file():
            return folder
    raise FileNotFoundError(
        f'There is no model-index.yml in {package / ".mim"} or {package.parent}: install the wheel '
        'or a clone (pip install -e .), or give configs and checkpoints by path.'
    )


def __getattr__(name: str) -> Any:
    if name in ('get_model', 'list_models'):
        return getattr(import_module('beitv2_mm.apis'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def _apply_fixes(imported: ModuleType) -> None:
    if imported.__name__ == 'mmengine':
        compat.apply()
    elif 'mmengine' not in sys.modules:  # else PyTorch is imported by mmengine, which comes next
        import_module('mmengine')


find_moved_modules()
if 'mmengine' in sys.modules:
    compat.apply()
else:
    after_import('mmengine', _apply_fixes)
    after_import('torch', _apply_fixes)
