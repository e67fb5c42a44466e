"""The quickstart: data, teacher, tokenizer, pretraining, fine-tuning, segmentation, report."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from beitv2_mm import config_root
from beitv2_mm.datasets.prepare import cifar10, composites
from beitv2_mm.jobs import quickstart_settings as s
from beitv2_mm.jobs.efficientnet import TEACHER_FILE, write_teacher
from beitv2_mm.jobs.quickstart_report import build_report
from beitv2_mm.jobs.quickstart_settings import Options, stage_name
from beitv2_mm.jobs.stages import Metrics, Stage, Stages, artifact, count_cores
from beitv2_mm.jobs.training import training_stage
from beitv2_mm.visualization.report_page import publish


class Plan(NamedTuple):
    """The stages, in the order in which they run."""

    preparation: list[Stage]  # one after the other
    composites: Stage  # may fail: Fashion-MNIST cannot be downloaded everywhere
    from_nothing: list[Stage]  # together: the pretraining, and the trainings from scratch
    pretrained: list[Stage]  # together: the trainings that start from the pretraining


def run(options: Options, logger: logging.Logger) -> Path:
    """Run what is not done yet and write the report; returns the page's path.

    Raises StageError where a training fails; what is done stays done.
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
    """All stages; trainings that run together, `workers` at a time, take `threads` each."""
    training, minutes = Trainings(options, logger, threads), s.MINUTES
    train = options.data / 'train'
    tokenizer = training(
        'tokenizer',
        s.TOKENIZER_CONFIG,
        scale.tokenizer,
        s.TOKENIZER_METRICS,
        uses={s.TEACHER: 'teacher'},
        images=(train, train),
        after=['data'],
        alone=True,
        later=(minutes['pretrain'] + minutes['pretrained']) / minutes['tokenizer'],
    )
    pretrain = training(
        'pretrain',
        s.PRETRAIN_CONFIG,
        scale.pretrain,
        s.PRETRAIN_METRICS,
        uses={s.TOKENIZER: 'tokenizer'},
        images=(train, train),
        later=minutes['pretrained'] / minutes['pretrain'],
    )
    pasted = options.out / 'composites' / s.COMPOSITES
    return Plan(
        preparation=[
            Stage('data', {}, lambda folder: _prepare_data(options)),
            Stage('teacher', {}, _prepare_teacher),
            tokenizer,
        ],
        composites=Stage(
            'composites', {}, lambda folder: _prepare_composites(pasted, options), ['data']
        ),
        from_nothing=[pretrain, *_downstream('scratch', training, scale, pasted, workers)],
        pretrained=_downstream('pretrained', training, scale, pasted, workers),
    )


def _downstream(
    way: str, training: 'Trainings', scale: s.Scale, pasted: Path, workers: int
) -> list[Stage]:
    """A classifier for each seed, and a segmentor of the composites in `pasted`."""
    options, changes = training.options, s.WAYS[way]
    uses = {s.BACKBONE: 'pretrain'} if way == 'pretrained' else {}
    # From scratch they run beside the pretraining, whose estimate counts.
    later = [(options.seeds - i) // workers if uses else 0 for i in range(options.seeds + 1)]
    classifiers = [
        training(
            stage_name(way, seed),
            s.FINETUNE_CONFIG,
            {**scale.finetune, **changes, 'randomness.seed': seed},
            s.FINETUNE_METRICS,
            uses=uses,
            images=(options.data / 'train', options.data / 'test'),
            after=['data'],
            later=later[seed],
        )
        for seed in range(options.seeds)
    ]
    segmentor = training(
        stage_name(f'segment_{way}', 0),
        s.SEGMENT_CONFIG,
        {**scale.segment, **changes},
        s.SEGMENT_METRICS,
        uses=uses,
        images=(pasted, pasted),
        after=['composites'],
        later=later[-1],
    )
    return [*classifiers, segmentor]


class Trainings:
    """Makes the stages that train: each with its share of the cores, on the chosen device."""

    def __init__(self, options: Options, logger: logging.Logger, threads: int) -> None:
        self.options = options
        self.logger = logger
        self.hidden = {'CUDA_VISIBLE_DEVICES': ''} if options.device == 'cpu' else {}
        self.threads = {'OMP_NUM_THREADS': str(threads)}

    def __call__(
        self,
        name: str,
        path: str,
        changes: s.Values,
        metrics: Sequence[str],
        uses: Mapping[str, str],
        images: tuple[Path, Path],
        after: Sequence[str] = (),
        alone: bool = False,
        later: float = 0.0,
    ) -> Stage:
        """A stage.

        Args:
            changes: to the config.
            uses: option that takes a file -> stage that makes the file.
            images: to train and to validate on.
            alone: whether it has all cores.
            later: see `training_stage`.
        """

        def places() -> s.Values:
            made = {option: artifact(self.options.out / stage) for option, stage in uses.items()}
            return {s.TRAIN_IMAGES: images[0], s.VAL_IMAGES: images[1], **made}

        return training_stage(
            name,
            config_root() / path,
            metrics,
            self.logger,
            changes,
            places=places,
            after=(*after, *uses.values()),
            environment=self.hidden if alone else {**self.hidden, **self.threads},
            later=later,
        )


def _prepare_data(options: Options) -> Metrics:
    counts = cifar10.prepare(options.data, options.source)['counts']
    return {f'{split}_images': count for split, count in counts.items()}


def _prepare_composites(folder: Path, options: Options) -> Metrics:
    composites.prepare(folder, options.data)
    return {}


def _prepare_teacher(folder: Path) -> Metrics:
    write_teacher(folder / TEACHER_FILE)
    return {}
