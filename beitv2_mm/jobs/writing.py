"""Configs as files for people to edit: what they may want to change stands once, at the top."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from beitv2_mm import config_root
from beitv2_mm.checkpoint.atomic import write_atomic
from beitv2_mm.jobs.choices import Schedule

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
BANKS = ('val_evaluator.bank', 'test_evaluator.bank')
# Names of variables and the places that hold their values. The first place decides: where it does
# not exist there is no such variable, and other places with another value keep theirs.
VARIABLES: tuple[tuple[str, Sequence[str]], ...] = (
    ('data_root', [f'{loader}.dataset.data_root' for loader in (*LOADERS, *BANKS)]),
    ('data_root', [f'{loader}.dataset.data_root' for loader in (LOADERS[2], BANKS[1])]),
    ('classes', [f'{loader}.dataset.classes' for loader in LOADERS]),
    ('num_classes', ['model.head.num_classes', 'model.data_preprocessor.num_classes']),
    ('num_classes', ['model.decode_head.num_classes', 'model.auxiliary_head.num_classes']),
    ('num_classes', [f'model.roi_head.{head}_head.num_classes' for head in ('bbox', 'mask')]),
    ('max_epochs', ['train_cfg.max_epochs']),
    ('max_iters', ['train_cfg.max_iters']),
    ('warmup', ['param_scheduler.warmup']),
    ('batch_size', [f'{loader}.batch_size' for loader in LOADERS]),
    ('learning_rate', ['optim_wrapper.optimizer.lr']),
)


def write_config(cfg: Config, path: Path, task: str, folder: Path, plan: Schedule) -> None:
    """Writes a config file that says at its top what was chosen, and why; types are written as
    their full names."""
    content = copy.deepcopy(cfg)
    values: dict[str, Any] = {}
    for name, places in VARIABLES:
        value = _get(cfg, places[0])
        if value is None or name in values:
            continue
        values[name] = value
        for place in places:
            if _get(cfg, place) == value:
                content.merge_from_dict({place: _mark(name)})
    text = content.pretty_text
    for name in values:
        text = text.replace(repr(_mark(name)), name)
    head = _about(path, task, folder, plan).replace('\\', '\\\\').replace('"""', "'''")
    lines = [f'{name} = {value!r}' for name, value in values.items()]
    settings = '\n'.join(['# What you may want to change. All that follows uses it.', *lines])
    write_atomic(path, f'"""{head}\n"""\n\n{settings}\n\n{text}'.encode())


def _mark(name: str) -> str:
    return f'<{name}>'


def _get(cfg: Any, place: str) -> Any:
    for key in place.split('.'):
        if isinstance(cfg, list):
            cfg = cfg[int(key)] if int(key) < len(cfg) else None
        else:
            cfg = cfg.get(key) if hasattr(cfg, 'get') else None
        if cfg is None:
            return None
    return cfg


def _about(path: Path, task: str, folder: Path, plan: Schedule) -> str:
    what = {
        'tokenizer': 'Visual tokenizer',
        'pretrain': 'Masked image modelling',
        'full': 'Classifier',
        'linear': 'Linear classifier of frozen features',
        'knn': 'Weighted k-NN of frozen features',
        'segment': 'Segmentor',
        'detect': 'Detector',
    }[task]
    machine, size = plan.machine, plan.size
    memory = f'a GPU of {machine.gpu_memory / 2**30:.0f} GiB' if machine.gpu_memory else 'CPU'
    return (
        f'{what} on {folder.resolve()}, written by python -m beitv2_mm.\n\n'
        f'Chosen for this folder and machine ({memory}, {machine.cores} cores): images of '
        f'{size.pixels} px in\npatches of {size.patch} px, batch size {plan.batch}, '
        f'{plan.epochs} epochs of {plan.steps} steps.\n'
        f'Run again, edited or not:\n'
        f'    python {config_root() / "tools/train.py"} {path.resolve()}'
    )
