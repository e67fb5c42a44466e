"""BEiT v2 for OpenMMLab: tokenizer, masked image modelling and fine-tuning on today's PyTorch.

Importing the package applies what the installed stack needs (``beitv2_mm.compat.active()`` lists
it) and nothing else: models and datasets are imported by the configs, or by the registries when a
config names one of them, and the model zoo when it is asked for. The models join mmpretrain's list
when mmpretrain is imported (``beitv2_mm.hub``).
"""

from typing import TYPE_CHECKING, Any

from beitv2_mm import compat, hub

if TYPE_CHECKING:
    from beitv2_mm.apis import get_model, list_models

__version__ = '0.1.0'
__all__ = ['__version__', 'compat', 'get_model', 'list_models']

compat.apply()
hub.register()


def __getattr__(name: str) -> Any:
    if name in ('get_model', 'list_models'):
        from beitv2_mm import apis

        return getattr(apis, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
