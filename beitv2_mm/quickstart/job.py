"""The quickstart: data, teacher, tokenizer, pretraining, fine-tuning, report."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from beitv2_mm.datasets import cifar10
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


def run(options: Options, logger: logging.Logger) -> Path:
    """Run what is not done yet and write the report; returns the page's path.

    Raises StageError where a training fails; what is done stays done.
    """
    scale = s.FAST if options.fast else s.NORMAL
    workers, threads = share_cores(options.device)
    preparation, finetunings = make_plan(options, scale, logger, threads)
    stages = Stages(options.out, logger)
    if options.restart:
        for stage in (*preparation, *finetunings):
            stages.forget(stage.name)
    elif not (options.data / cifar10.MARKER).exists():
        stages.forget('data')
    for stage in preparation:
        stages.run(stage)
    stages.run_together(finetunings, workers)
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


def make_plan(
    options: Options, scale: s.Scale, logger: logging.Logger, threads: int
) -> tuple[list[Stage], list[Stage]]:
    """The stages in order, and the fine-tunings after them, `threads` each.

    A training is the run of a config file by tools/train.py.
    """
    hidden = {'CUDA_VISIBLE_DEVICES': ''} if options.device == 'cpu' else {}

    def training(
        name: str,
        path: str,
        changes: s.Values,
        metrics: Sequence[str],
        uses: Mapping[str, str],  # option that takes a file -> stage that makes the file
        validate_on: str = 'train',
        after: Sequence[str] = (),
        environment: Mapping[str, str] = hidden,
    ) -> Stage:
        def action(folder: Path) -> Metrics:
            values = {
                **changes,
                s.TRAIN_IMAGES: options.data / 'train',
                s.VAL_IMAGES: options.data / validate_on,
                **{option: artifact(options.out / stage) for option, stage in uses.items()},
            }
            return run_config(
                options.root, options.root / path, folder, metrics, logger, values, environment
            )

        content = config(options.root / path, changes).to_dict()
        return Stage(name, content, action, (*after, *uses.values()))

    plan = [
        Stage('data', {}, lambda folder: _prepare_data(options)),
        Stage('teacher', {}, _prepare_teacher),
        training(
            'tokenizer',
            s.TOKENIZER_CONFIG,
            scale.tokenizer,
            s.TOKENIZER_METRICS,
            uses={s.TEACHER: 'teacher'},
            after=['data'],
        ),
        training(
            'pretrain',
            s.PRETRAIN_CONFIG,
            scale.pretrain,
            s.PRETRAIN_METRICS,
            uses={s.TOKENIZER: 'tokenizer'},
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
                    validate_on='test',
                    after=['data'],
                    environment={**hidden, 'OMP_NUM_THREADS': str(threads)},
                )
            )
    return plan, finetunings


def _prepare_data(options: Options) -> Metrics:
    counts = cifar10.prepare(options.data, options.source)['counts']
    return {f'{split}_images': count for split, count in counts.items()}


def _prepare_teacher(folder: Path) -> Metrics:
    write_teacher(folder / TEACHER_FILE)
    return {}
