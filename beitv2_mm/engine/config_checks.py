"""Finds mistakes in a config that would otherwise show late, as another error, or never."""

import inspect
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS, WEIGHT_INITIALIZERS
from mmengine.runner import Runner
from mmengine.runner._flexible_runner import FlexibleRunner

from beitv2_mm.engine.errors import ConfigError
from beitv2_mm.engine.precision import mixed_precision

# Keys of a config that only the tools read, and keys that any dict of a config may have.
OF_TOOLS = {'auto_scale_lr', 'custom_imports', 'runner_type', 'tta_model', 'tta_pipeline'}
OF_ANY = {'type', '_delete_', '_scope_'}


def check_classes(cfg: Config) -> None:
    """Raises a ConfigError if the parts of a classifier have different numbers of classes."""
    model = cfg.get('model') or {}
    if 'num_classes' not in (model.get('head') or {}):
        return
    parts = ('head', 'data_preprocessor', 'train_cfg')
    places = [place for part in parts for place in _places(model.get(part), f'model.{part}')]
    if len({count for _, count in places}) > 1:
        raise ConfigError(
            f'The config has different numbers of classes: {_listed(places)}. Set all of them to '
            'the number of classes in the data.'
        )


def _places(node: Any, name: str) -> Iterator[tuple[str, int]]:
    """Dotted name and value of every ``num_classes`` below a node of the config."""
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(node, dict):
        items = node.items()
    elif isinstance(node, (list, tuple)):
        items = enumerate(node)
    for key, value in items:
        if key == 'num_classes' and isinstance(value, int):
            yield f'{name}.num_classes', value
        else:
            yield from _places(value, f'{name}.{key}')


def _listed(places: Iterable[tuple[str, int]]) -> str:
    return ', '.join(f'{name}={count}' for name, count in places)


class ClassCountHook(Hook):
    """Refuses to train a classifier on data with another number of classes."""

    def before_train(self, runner: Runner) -> None:
        head = (runner.cfg.get('model') or {}).get('head') or {}
        meta = getattr(runner.train_dataloader.dataset, 'metainfo', None) or {}
        classes, expected = meta.get('classes'), head.get('num_classes')
        if classes is None or expected is None or len(classes) == expected:
            return
        places = _places(runner.cfg.model, 'model')
        names = ', '.join(map(str, classes[:3]))
        raise ConfigError(
            f'The training data have {len(classes)} classes ({names}, ...), but '
            f'{_listed(places)}. Set them behind --cfg-options: '
            f'model.head.num_classes={len(classes)} and so on.'
        )


@contextmanager
def explain_batch_of_one(runner: Runner) -> Iterator[None]:
    """Turns PyTorch's error about batch norm of a single value into one that says what to change.

    Raises:
        ConfigError: in place of PyTorch's error, which is its cause.
    """
    try:
        yield
    except ValueError as error:
        if 'Expected more than 1 value per channel' not in str(error):
            raise
        batch = runner.train_dataloader.batch_size
        advice = (
            'train_dataloader.batch_size=2 or more, or as many processes'
            if batch == 1
            else 'train_dataloader.drop_last=True, because the last batch of the epoch is smaller'
        )
        raise ConfigError(
            f'Batch norm got one value for each channel in iteration {runner.iter + 1}, which has '
            f'no variance: a head pools a batch of one image to one pixel (batch_size={batch}). '
            f"Set {advice}; or give the heads norm_cfg=dict(type='GN', num_groups=32)."
        ) from error


class Unknown(NamedTuple):
    """A word of a dotted key that nothing reads: the key before it, the names that are known
    there, and whether no other names are possible."""

    where: str
    word: str
    names: set[str]
    closed: bool


def misspelt(cfg: Config, options: Iterable[str]) -> list[str]:
    """Warnings about options that are neither in the config nor in the signature of a class."""
    if os.environ.get('RANK', '0') != '0':
        return []
    warnings = []
    for key in options:
        found = first_unknown(cfg, key)
        if found is None:
            continue
        near = get_close_matches(found.word, found.names, 1, 0.6 if found.closed else 0.9)
        if near or found.closed:
            hint = f': did you mean {found.where}{near[0]}?' if near else ''
            warnings.append(f'--cfg-options {key}: nothing is known to read {found.word!r}{hint}')
    return warnings


def first_unknown(config: Config, key: str) -> Unknown | None:
    """The first word of a dotted key that is neither in the config nor an argument of the class.

    Returns:
        None if the program reads the key.
    """
    node: Any = config
    name = where = ''
    for word in key.split('.'):
        if isinstance(node, (list, tuple)):
            if not word.isdigit() or int(word) >= len(node):
                return Unknown(where, word, set(map(str, range(len(node)))), True)
            node = node[int(word)]
        elif isinstance(node, (dict, Config)):
            if word not in node:
                if name == 'default_hooks':
                    return None  # an additional hook, whose type is given by another option
                taken, closed = _taken(node, name)
                if word in taken:
                    return None
                return Unknown(where, word, taken | set(node), closed)
            node = node[word]
        else:
            return Unknown(where, word, set(), False)
        name, where = word, f'{where}{word}.'
    return None


def _taken(node: Any, name: str) -> tuple[set[str], bool]:
    """Names of the arguments of a dict's class, and whether it takes no others."""
    if isinstance(node, Config):
        runners = parameters(Runner) | parameters(FlexibleRunner)
        return runners | OF_TOOLS, True
    kind = node.get('type', _kind_of(name))
    if isinstance(kind, str):
        kind = WEIGHT_INITIALIZERS.get(kind) or HOOKS.get(kind)
    if kind is None:
        return set(OF_ANY), False
    names = parameters(kind)
    return names | OF_ANY, 'kwargs' not in names


def _kind_of(name: str) -> Any:
    """The class of a dict without a type, which follows from its key."""
    from mmpretrain.models.utils.batch_augments import RandomBatchAugment

    from beitv2_mm.layers import VectorQuantizer
    from beitv2_mm.models import BEiTV2Backbone, VQKDTokenizer

    return {
        'encoder': BEiTV2Backbone,
        'decoder': BEiTV2Backbone,
        'quantizer': VectorQuantizer,
        'tokenizer': VQKDTokenizer,
        'train_cfg': RandomBatchAugment,
    }.get(name)


def parameters(kind: Any) -> set[str]:
    """Names of the arguments of a class, and of its bases as far as it passes keywords on."""
    if kind is mixed_precision:
        return {*inspect.signature(kind).parameters, *parameters(OptimWrapper)}
    if not inspect.isclass(kind):
        return set(inspect.signature(kind).parameters) if kind else set()
    names: set[str] = set()
    for base in kind.__mro__:
        if '__init__' in vars(base):
            names.discard('kwargs')
            found = inspect.signature(vars(base)['__init__']).parameters.values()
            names |= {'kwargs' if p.kind is p.VAR_KEYWORD else p.name for p in found}
            if not any(p.kind is p.VAR_KEYWORD for p in found):
                break
    return names
