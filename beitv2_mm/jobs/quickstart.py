"""`tools/quickstart.py`: CIFAR-10, teacher, tokenizer, pretraining, fine-tuning, segmentation."""

import logging
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from beitv2_mm import config_root
from beitv2_mm.datasets.prepare import cifar10, composites
from beitv2_mm.jobs import quickstart_settings as s
from beitv2_mm.jobs.efficientnet import TEACHER_FILE, write_teacher
from beitv2_mm.jobs.quickstart_report import build_report
from beitv2_mm.jobs.quickstart_settings import Options, stage_name
from beitv2_mm.jobs.stages import Metrics, Stage, Stages, count_cores
from beitv2_mm.jobs.training import Values, training_stage
from beitv2_mm.visualization.report_page import publish


class Plan(NamedTuple):
    """The stages, in the order in which they run."""

    preparation: list[Stage]  # one after the other
    composites: Stage  # may fail: Fashion-MNIST cannot be downloaded everywhere
    from_nothing: list[Stage]  # together: the pretraining, and the trainings from scratch
    pretrained: list[Stage]  # together: the trainings that start from the pretraining


def run(options: Options, logger: logging.Logger) -> Path:
    """Runs what is not done yet and writes the report; returns the path of its page.

    Raises:
        StageError: a training fails; what is done stays done.
    """
    scale = s.FAST if options.fast else s.NORMAL
    workers, threads = share_cores(options.device)
    plan = make_plan(options, scale, logger, workers, threads)
    every = [*plan.preparation, plan.composites, *plan.from_nothing, *plan.pretrained]
    stages = Stages(options.out, logger, len(every))
    if options.restart:
        for stage in every:
            stages.forget(stage.name)
    elif not (options.data / cifar10.MARKER).exists():
        stages.forget('data')
    for stage in plan.preparation:
        stages.run(stage)
    left_out: str | None = None
    try:
        stages.run(plan.composites)
    except (OSError, ValueError) as error:
        logger.warning(f'segmentation is left out, since there are no composites: {error}')
        left_out = plan.composites.name
    for together in (plan.from_nothing, plan.pretrained):
        stages.run_together([stage for stage in together if left_out not in stage.after], workers)
    logger.info('report: starts')
    report = build_report(stages.results, scale, options)
    return publish(report, options.out, logger)


def share_cores(device: str) -> tuple[int, int]:
    """How many trainings run at once, and the threads of each; a GPU takes one after the other.

    Two trainings of one thread each end sooner than one after the other with two threads: a step of
    so small a network takes more than half as long with twice the threads.
    """
    cores = count_cores()
    workers = 1 if device != 'cpu' and torch.cuda.is_available() else min(cores, 4)
    return workers, max(cores // workers, 1)


def make_plan(
    options: Options, scale: s.Scale, logger: logging.Logger, workers: int, threads: int
) -> Plan:
    """All stages; trainings that run together, ``workers`` at a time, take ``threads`` each."""
    hidden = {'CUDA_VISIBLE_DEVICES': ''} if options.device == 'cpu' else {}
    shared = {**hidden, 'OMP_NUM_THREADS': str(threads)}
    training, minutes = partial(_training, options, scale, logger), s.MINUTES
    tokenizer = training(
        'tokenizer',
        'tokenizer',
        uses={s.TEACHER: 'teacher'},
        after=['data'],
        environment=hidden,  # all cores: nothing runs beside it
        later=(minutes['pretrain'] + minutes['pretrained']) / minutes['tokenizer'],
    )
    pretrain = training(
        'pretrain',
        'pretrain',
        uses={s.TOKENIZER: 'tokenizer'},
        environment=shared,
        later=minutes['pretrained'] / minutes['pretrain'],
    )

    def downstream(way: str) -> list[Stage]:
        """A classifier for each seed, and a segmentor of the composites."""
        uses = {s.BACKBONE: 'pretrain'} if way == 'pretrained' else {}
        seeds = range(options.seeds)
        parts = [('finetune', stage_name(way, i), 'data', {'randomness.seed': i}) for i in seeds]
        parts.append(('segment', stage_name(f'segment_{way}', 0), 'composites', {}))
        return [
            training(
                name,
                task,
                {**s.WAYS[way], **changes},
                uses=uses,
                after=[before],
                environment=shared,
                # From scratch they run beside the pretraining, whose estimate counts.
                later=(options.seeds - i) // workers if uses else 0,
            )
            for i, (task, name, before, changes) in enumerate(parts)
        ]

    return Plan(
        preparation=[
            Stage('data', {}, lambda folder: _prepare_data(options)),
            Stage('teacher', {}, _prepare_teacher),
            tokenizer,
        ],
        composites=Stage(
            'composites', {}, lambda folder: _prepare_composites(folder, options), ['data']
        ),
        from_nothing=[pretrain, *downstream('scratch')],
        pretrained=downstream('pretrained'),
    )


def _training(
    options: Options,
    scale: s.Scale,
    logger: logging.Logger,
    name: str,
    task: str,
    changes: Values | None = None,
    **settings: Any,
) -> Stage:
    """A stage that trains on the images of its task; see `training_stage` for the settings."""
    train = validation = options.data / 'train'
    if task == 'finetune':
        validation = options.data / 'test'
    if task == 'segment':
        train = validation = options.out / 'composites' / s.COMPOSITES
    places = {s.TRAIN_IMAGES: train, s.VAL_IMAGES: validation}
    changes = {**scale.changes[task], **(changes or {})}
    path = config_root() / s.CONFIGS[task]
    return training_stage(name, task, path, logger, changes, places=places, **settings)


def _prepare_data(options: Options) -> Metrics:
    counts = cifar10.prepare(options.data, options.source)['counts']
    return {f'{split}_images': count for split, count in counts.items()}


def _prepare_composites(folder: Path, options: Options) -> Metrics:
    composites.prepare(folder / s.COMPOSITES, options.data)
    return {}


def _prepare_teacher(folder: Path) -> Metrics:
    write_teacher(folder / TEACHER_FILE)
    return {}
