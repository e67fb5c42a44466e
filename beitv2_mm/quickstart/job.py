"""The quickstart: data, teacher, tokenizer, pretraining, fine-tuning, segmentation, report."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from beitv2_mm.datasets import cifar10, composites
from beitv2_mm.quickstart import settings as s
from beitv2_mm.quickstart.outcome import build_report
from beitv2_mm.quickstart.settings import Options, stage_name
from beitv2_mm.quickstart.stages import (
    Metrics,
    Stage,
    Stages,
    artifact,
    config,
    count_cores,
    run_config,
)
from beitv2_mm.quickstart.teacher import TEACHER_FILE, write_teacher
from beitv2_mm.visualization.report import log_table, write_report


class Plan(NamedTuple):
    """Stages: one after the other, then fine-tunings that do not build on each other."""

    preparation: list[Stage]
    finetunings: list[Stage]
    composites: Stage  # may fail: Fashion-MNIST cannot be had everywhere
    segmentations: list[Stage]


def run(options: Options, logger: logging.Logger) -> Path:
    """Run what is not done yet and write the report; returns the page's path.

    Raises StageError where a training fails; what is done stays done.
    """
    scale = s.FAST if options.fast else s.NORMAL
    workers, threads = share_cores(options.device)
    plan = make_plan(options, scale, logger, threads)
    stages = Stages(options.out, logger, sum(len(p) for p in plan if isinstance(p, list)) + 1)
    if options.restart:
        every = (*plan.preparation, *plan.finetunings, plan.composites, *plan.segmentations)
        for stage in every:
            stages.forget(stage.name)
    elif not (options.data / cifar10.MARKER).exists():
        stages.forget('data')
    for stage in plan.preparation:
        stages.run(stage)
    trainings = plan.finetunings
    try:
        stages.run(plan.composites)
        trainings = [*trainings, *plan.segmentations]
    except (OSError, ValueError) as error:
        logger.warning(f'segmentation is left out, since there are no composites: {error}')
    stages.run_together(trainings, workers)
    logger.info('report: starts')
    report = build_report(stages.results, scale, options)
    page = write_report(report, options.out)
    log_table(report, logger)
    return page


def share_cores(device: str) -> tuple[int, int]:
    """How many fine-tunings run at once, and the threads of each; a GPU takes one after the other.

    So small a network gains next to nothing from a second thread: two runs of one thread each take
    half the time.
    """
    cores = count_cores()
    workers = 1 if device != 'cpu' and torch.cuda.is_available() else min(cores, 4)
    return workers, max(cores // workers, 1)


def make_plan(options: Options, scale: s.Scale, logger: logging.Logger, threads: int) -> Plan:
    """All stages; fine-tunings take `threads` each.

    A training is the run of a config file by tools/train.py.
    """
    hidden = {'CUDA_VISIBLE_DEVICES': ''} if options.device == 'cpu' else {}

    def training(
        name: str,
        path: str,
        changes: s.Values,
        metrics: Sequence[str],
        uses: Mapping[str, str],  # option that takes a file -> stage that makes the file
        images: tuple[Path, Path],  # to train and to validate on
        after: Sequence[str] = (),
        environment: Mapping[str, str] = hidden,
        later: float = 0.0,
    ) -> Stage:
        def action(folder: Path) -> Metrics:
            values = {
                **changes,
                **dict(zip((s.TRAIN_IMAGES, s.VAL_IMAGES), images, strict=True)),
                **{option: artifact(options.out / stage) for option, stage in uses.items()},
            }
            return run_config(
                options.root,
                options.root / path,
                folder,
                metrics,
                logger,
                values,
                environment,
                later=later,
            )

        content = config(options.root / path, changes).to_dict()
        return Stage(name, content, action, (*after, *uses.values()))

    train_images, test_images = options.data / 'train', options.data / 'test'
    pasted = options.out / 'composites' / s.COMPOSITES
    own_threads = {**hidden, 'OMP_NUM_THREADS': str(threads)}
    preparation = [
        Stage('data', {}, lambda folder: _prepare_data(options)),
        Stage('teacher', {}, _prepare_teacher),
        training(
            'tokenizer',
            s.TOKENIZER_CONFIG,
            scale.tokenizer,
            s.TOKENIZER_METRICS,
            uses={s.TEACHER: 'teacher'},
            images=(train_images, train_images),
            after=['data'],
            later=(s.MINUTES['pretrain'] + s.MINUTES['finetune']) / s.MINUTES['tokenizer'],
        ),
        training(
            'pretrain',
            s.PRETRAIN_CONFIG,
            scale.pretrain,
            s.PRETRAIN_METRICS,
            uses={s.TOKENIZER: 'tokenizer'},
            images=(train_images, train_images),
            later=s.MINUTES['finetune'] / s.MINUTES['pretrain'],
        ),
    ]
    finetunings = []
    # Seeds outside: whoever stops early has all ways of the first seeds to compare.
    for seed in range(options.seeds):
        for way, changes in s.WAYS.items():
            finetunings.append(
                training(
                    stage_name(way, seed),
                    s.FINETUNE_CONFIG,
                    {**scale.finetune, **changes, 'randomness.seed': seed},
                    s.FINETUNE_METRICS,
                    uses={s.BACKBONE: 'pretrain'} if way == 'pretrained' else {},
                    images=(train_images, test_images),
                    after=['data'],
                    environment=own_threads,
                )
            )
    segmentations = [
        training(
            stage_name(f'segment_{way}', 0),
            s.SEGMENT_CONFIG,
            {**scale.segment, **changes},
            s.SEGMENT_METRICS,
            uses={s.BACKBONE: 'pretrain'} if way == 'pretrained' else {},
            images=(pasted, pasted),
            after=['composites'],
            environment=own_threads,
        )
        for way, changes in s.WAYS.items()
    ]
    paste = Stage(
        'composites',
        {},
        lambda folder: _prepare_composites(folder / s.COMPOSITES, options),
        ['data'],
    )
    return Plan(preparation, finetunings, paste, segmentations)


def _prepare_data(options: Options) -> Metrics:
    counts = cifar10.prepare(options.data, options.source)['counts']
    return {f'{split}_images': count for split, count in counts.items()}


def _prepare_composites(folder: Path, options: Options) -> Metrics:
    composites.prepare(folder, options.data)
    return {}


def _prepare_teacher(folder: Path) -> Metrics:
    write_teacher(folder / TEACHER_FILE)
    return {}
