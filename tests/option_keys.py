"""Whether a key of --cfg-options means something: the config has it, or the class takes it."""

import inspect
from typing import Any

from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS, WEIGHT_INITIALIZERS
from mmpretrain.models.utils.batch_augments import RandomBatchAugment

from beitv2_mm.engine import mixed_precision
from beitv2_mm.layers import VectorQuantizer
from beitv2_mm.models import BEiTV2Backbone, VQKDTokenizer

# Dicts without a type, by the key that holds them.
KINDS = {
    'encoder': BEiTV2Backbone,
    'decoder': BEiTV2Backbone,
    'quantizer': VectorQuantizer,
    'tokenizer': VQKDTokenizer,
    'train_cfg': RandomBatchAugment,
}


def is_known(config: Config, key: str) -> bool:
    """Whether setting ``key`` changes something that the program reads."""
    node: Any = config
    name = ''
    for word in key.split('.'):
        if isinstance(node, (list, tuple)):
            if not word.isdigit() or int(word) >= len(node):
                return False
            node = node[int(word)]
        elif isinstance(node, (dict, Config)):
            if word not in node:
                if name == 'default_hooks':
                    return True  # a hook more; its type is an option of its own
                return word in parameters(_kind(node, name))
            node = node[word]
        else:
            return False
        name = word
    return True


def _kind(node: Any, name: str) -> Any:
    kind = node.get('type', KINDS.get(name))
    if isinstance(kind, str):
        kind = WEIGHT_INITIALIZERS.get(kind) or HOOKS.get(kind)
    return kind


def parameters(kind: Any) -> set[str]:
    """Names of the arguments of a class, those of its bases included where it hands on."""
    if kind is mixed_precision:
        return {*inspect.signature(kind).parameters, *parameters(OptimWrapper)}
    if not inspect.isclass(kind):
        return set(inspect.signature(kind).parameters) if kind else set()
    names: set[str] = set()
    for base in kind.__mro__:
        if '__init__' in vars(base):
            found = inspect.signature(base.__init__).parameters.values()
            names |= {p.name for p in found}
            if not any(p.kind is p.VAR_KEYWORD for p in found):
                break
    return names
