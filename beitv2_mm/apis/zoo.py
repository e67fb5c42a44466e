"""The published models by name, from metafiles: their configs and weights."""

import copy
import fnmatch
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import BaseModel, PretrainedInit
from mmengine.registry import DefaultScope
from torch import nn

from beitv2_mm import config_root
from beitv2_mm.checkpoint import dataset_meta, load
from beitv2_mm.generation import MaskedGenerator
from beitv2_mm.models import BEiTV2Pretrainer
from beitv2_mm.registry import MODELS


class ModelInfo(NamedTuple):
    """An entry of a metafile."""

    name: str
    config: Path
    weights: str
    tasks: tuple[str, ...]  # with published results
    metadata: Mapping[str, Any]


@cache
def _models() -> dict[str, ModelInfo]:
    root = config_root()
    models = {}
    for metafile in yaml.safe_load((root / 'model-index.yml').read_bytes())['Import']:
        for entry in yaml.safe_load((root / metafile).read_bytes())['Models']:
            if 'Weights' not in entry:  # a recipe that nobody has published weights of
                continue
            tasks = tuple(result['Task'] for result in entry.get('Results') or ())
            models[entry['Name']] = ModelInfo(
                entry['Name'],
                root / entry['Config'],
                entry['Weights'],
                tasks,
                entry.get('Metadata') or {},
            )
    return models


def list_models(pattern: str | None = None, task: str | None = None) -> list[str]:
    """Names of the published models, sorted.

    Args:
        pattern: wildcards as in file names; the end of a name may be left out.
        task: keep models with published results of it, e.g. 'Image Classification'.
    """
    return sorted(
        name
        for name, info in _models().items()
        if fnmatch.fnmatch(name, f'{pattern or ""}*') and (task is None or task in info.tasks)
    )


def model_info(name: str) -> ModelInfo:
    """The entry of a model.

    Raises:
        ValueError: unknown name; the nearest ones are named.
    """
    models = _models()
    if name.lower() not in models:
        raise unknown_model(name, models)
    return models[name.lower()]


def unknown_model(name: str, known: Iterable[str]) -> ValueError:
    """The error for a name that is not among the known ones; it names the nearest."""
    names = list(known)
    near = get_close_matches(name.lower(), names, n=3, cutoff=0.4)
    hint = f'Did you mean {", ".join(near)}?' if near else f'There are {", ".join(names)}.'
    return ValueError(f'There is no model {name!r}. {hint}')


def get_model(
    model: str | PathLike | Config,
    pretrained: bool | str | PathLike = False,
    device: str | torch.device | None = None,
    **kwargs: Any,
) -> BaseModel:
    """A model in eval mode, by name, config file or config.

    Args:
        model: a name of `list_models`, the path of a config file, or a Config.
        pretrained: True for the published weights (downloaded once), a checkpoint of any layout,
            or False for the network's own initialisation.
        kwargs: settings that replace those of the config's model, e.g.
            ``backbone=dict(img_size=384)``; an ``arch`` is replaced as a whole.

    Raises:
        ValueError: unknown name, or True for a model without published weights.
        CheckpointError: the weights cannot be downloaded, or belong to another model.
    """
    info = None
    if isinstance(model, Config):
        config = copy.deepcopy(model)
    elif str(model).endswith('.py'):
        config = Config.fromfile(model)
    else:
        info = model_info(str(model))
        config = Config.fromfile(info.config)
    if pretrained is True:
        pretrained = info.weights if info else config.get('load_from') or ''
        if not pretrained:
            raise ValueError(
                f'{model} names no weights (load_from): give the path as pretrained=PATH.'
            )
    if kwargs:
        _clear_arch(config.model, kwargs)
        config.merge_from_dict({'model': kwargs})
    _forget_pretraining(config.model)
    with DefaultScope.overwrite_default_scope(_scope(config)):
        built: BaseModel = MODELS.build(config.model)
    with _quiet():  # mmengine lists every parameter that it initialises
        for part in _parts(built):
            part.init_weights()
    if pretrained:
        load(built, pretrained)
    built._config, built._metainfo = config, info
    meta = dataset_meta(str(pretrained)) if pretrained else {}
    built._pixel_rules = {key: meta[key] for key in ('white', 'channels') if key in meta}
    built._dataset_meta = {'classes': _classes(built, meta)}
    return built.to(device or 'cpu').eval()


def _scope(config: Config) -> str:
    """The scope in which a model looks up what it names: that of text configs, or its package."""
    kind = config.model.type
    package = (kind if isinstance(kind, str) else kind.__module__).split('.')[0]
    known = package if package in ('mmdet', 'mmseg') else 'mmpretrain'
    return config.get('default_scope') or known


@contextmanager
def _quiet() -> Iterator[None]:
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _clear_arch(config: dict, settings: Mapping[str, Any]) -> None:
    """Empty the archs that are to be replaced: merging would mix the two, or fail on a name."""
    for key, value in settings.items():
        if key == 'arch':
            config[key] = {}
        elif isinstance(value, Mapping) and isinstance(config.get(key), dict):
            _clear_arch(config[key], value)


def _forget_pretraining(config: dict) -> None:
    """Remove the weights from which training would start; frozen networks keep theirs."""
    for key, value in list(config.items()):
        if key == 'init_cfg':
            found = value if isinstance(value, list) else [value]
            kept = [c for c in found if c and c['type'] not in ('Pretrained', PretrainedInit)]
            config[key] = kept or None
        elif key == 'start_from':
            config[key] = None
        elif isinstance(value, dict) and key not in ('tokenizer', 'teacher', 'pixel_decoder'):
            _forget_pretraining(value)


def _parts(model: nn.Module) -> list[Any]:
    if isinstance(model, BEiTV2Pretrainer):  # as a whole it would download its tokenizer
        return [part for part in (model.backbone, model.neck, model.head) if part is not None]
    return [model]


def _classes(model: nn.Module, meta: Mapping[str, Any]) -> list[str] | None:
    """Class names: those in a checkpoint's ``meta``, or else ImageNet's for 1000 classes."""
    holder = model if isinstance(model, MaskedGenerator) else getattr(model, 'head', None)
    num_classes = getattr(holder, 'num_classes', None)
    if num_classes is None:
        return None
    names: list[str] = meta.get('classes', [])
    if len(names) == num_classes:
        return names
    if num_classes != 1000:
        return None
    from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

    return list(IMAGENET_CATEGORIES)
