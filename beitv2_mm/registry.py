"""Child registries of scope ``beitv2_mm``.

mmengine imports this file by itself when a config says ``type='beitv2_mm.Name'``, and ``locations``
tell it what to import then: users of text configs need no ``custom_imports``.
"""

from collections.abc import Mapping
from typing import Any

from mmengine import registry as root
from mmengine.registry import Registry


def _child(parent: Registry, *folders: str) -> Registry:
    return Registry(
        parent.name,
        parent=parent,
        scope='beitv2_mm',
        locations=[f'beitv2_mm.{folder}' for folder in folders],
    )


MODELS = _child(root.MODELS, 'models', 'segmentation', 'detection', 'multimodal', 'generation')
DATASETS = _child(root.DATASETS, 'datasets', 'segmentation', 'detection', 'multimodal')
TRANSFORMS = _child(root.TRANSFORMS, 'datasets', 'segmentation', 'multimodal')
HOOKS = _child(root.HOOKS, 'engine')
LOOPS = _child(root.LOOPS, 'engine')
METRICS = _child(root.METRICS, 'engine', 'multimodal', 'generation')
RUNNERS = _child(root.RUNNERS, 'engine')
STRATEGIES = _child(root.STRATEGIES, 'engine')
OPTIM_WRAPPERS = _child(root.OPTIM_WRAPPERS, 'engine')
OPTIM_WRAPPER_CONSTRUCTORS = _child(root.OPTIM_WRAPPER_CONSTRUCTORS, 'engine')
PARAM_SCHEDULERS = _child(root.PARAM_SCHEDULERS, 'engine')


def type_name(config: Mapping[str, Any]) -> str:
    """The last word of a config's type, which is a class or its dotted name; '' without a type."""
    kind = config.get('type', '')
    return str(getattr(kind, '__name__', kind)).rsplit('.', 1)[-1]
