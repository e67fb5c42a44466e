"""A fix for mmpretrain with today's transformers, and the models of this package in its list:
``mmpretrain.list_models('beitv2_base')``.

mmpretrain does not ask plugins for models, and importing it takes seconds. So nothing happens
until mmpretrain is imported, and no metafile is read until mmpretrain is asked for a model.
"""

import functools
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any, NoReturn

import numpy
from mmengine.registry import Registry
from mmengine.utils import digit_version

import beitv2_mm
from beitv2_mm.compat.after_import import after_import


def mmpretrain_without_multimodal() -> bool:
    """Switch off mmpretrain's multimodal models if the installed transformers breaks them.

    Why: if transformers and pycocotools are installed (mmdet installs the latter), mmpretrain
    imports BLIP, OFA and others with its models. They import from transformers.modeling_utils
    GenerationMixin, removed in 4.52, and apply_chunking_to_forward, removed in 4.56, so no model at
    all can be imported ("NoneType takes no arguments"). The version decides, because importing
    transformers to probe it takes each process four seconds. A model that is switched off says so
    when it is built.
    Until: an mmpretrain (> 1.2.0) that can be imported with today's transformers.
    """
    try:
        found, _ = version('transformers'), version('pycocotools')
    except PackageNotFoundError:
        return False  # mmpretrain itself switches the models off
    if digit_version(found) < (4, 52):
        return False

    def refuse_models(names: Sequence[str], registry: Registry) -> None:
        for name in names:
            registry.register_module(name, module=_refused_model(name, found))

    def switch_off(dependency: ModuleType) -> None:
        vars(dependency).update(
            WITH_MULTIMODAL=False, register_multimodal_placeholder=refuse_models
        )

    after_import('mmpretrain.utils.dependency', switch_off)
    return True


def _refused_model(name: str, found: str) -> Callable[..., NoReturn]:
    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise ImportError(
            f'{name} of mmpretrain needs transformers < 4.52, here is {found}: '
            'pip install "transformers>=4.49,<4.52"'
        )

    return refuse


def isin_for_in1d() -> bool:
    """Let mmpretrain's recall, which calls numpy.in1d, run beside NumPy >= 2.4.

    Why: NumPy has removed it in favour of numpy.isin, which gives the same for one dimension.
    Until: an mmpretrain (> 1.2.0) that calls numpy.isin.
    """
    if hasattr(numpy, 'in1d'):
        return False

    def give(module: ModuleType) -> None:
        vars(numpy)['in1d'] = numpy.isin

    after_import('mmpretrain.evaluation.metrics.retrieval', give)
    return True


def list_our_models(module: ModuleType) -> None:
    """Adds our models to ``ModelHub``, and lets ``get_model`` build them by `beitv2_mm.get_model`,
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
            root = beitv2_mm.config_root()
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
    for name, loaded in list(sys.modules.items()):  # modules that have imported the function
        if name.split('.')[0] == 'mmpretrain' and getattr(loaded, 'get_model', None) is theirs:
            vars(loaded)['get_model'] = get_model
    vars(module)['get_model'] = get_model
