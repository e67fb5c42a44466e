"""BEiT v2 for OpenMMLab: tokenizer, masked image modelling and fine-tuning on today's PyTorch.

Importing the package applies what the installed stack needs (``beitv2_mm.compat.active()`` lists
it) and nothing else: models and datasets are imported by the configs, or by the registries when a
config names one of them.
"""

from beitv2_mm import compat

__version__ = '0.1.0'
__all__ = ['__version__', 'compat']

compat.apply()
