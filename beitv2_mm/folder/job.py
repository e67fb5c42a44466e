"""`python -m beitv2_mm pretrain` and `finetune`: survey, configs, trainings, report."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.config import Config

from beitv2_mm.datasets.pixel_rules import COLOURS
from beitv2_mm.folder import recipes, segmentation
from beitv2_mm.folder.choices import (
    Machine,
    Schedule,
    Size,
    exact_size,
    image_size,
    schedule,
    this_machine,
)
from beitv2_mm.folder.masks import survey_masks
from beitv2_mm.folder.options import (
    FinetuneOptions,
    Options,
    PretrainOptions,
    SegmentOptions,
    is_new,
    record_command,
)
from beitv2_mm.folder.outcome import finetuning_report, pretraining_report, segmenting_report
from beitv2_mm.folder.survey import FolderError, Survey, require_classes, survey
from beitv2_mm.folder.teachers import find_teacher
from beitv2_mm.folder.weights import find_weights
from beitv2_mm.folder.writing import write
from beitv2_mm.paths import config_root
from beitv2_mm.quickstart.settings import (
    FINETUNE_METRICS,
    PRETRAIN_METRICS,
    SEGMENT_METRICS,
    TOKENIZER_METRICS,
)
from beitv2_mm.quickstart.stages import Metrics, Stage, Stages, run_config, train
from beitv2_mm.visualization.report import Report, log_table, write_report

MOST = 5000  # images held out: all of them are read before the training, to leave bad ones out
FEW = 10_000  # images, below which a pretraining from nothing learns little


def pretrain(options: PretrainOptions, logger: logging.Logger) -> Path:
    """Train a tokenizer and pretrain with it; what is done already is skipped. Returns the page.

    Raises:
        FolderError: the folder, teacher, weights or out cannot be used.
        StageError: a training failed.
    """
    root = config_root()
    files = {name: options.out / f'{name}.py' for name in ('tokenizer', 'pretrain')}
    if is_new(options, files.values()):
        machine, found = this_machine(options.gpus), survey(options.folder)
        _log_survey(found, logger)
        if found.num_images < FEW and not options.source:
            logger.warning(
                f'With fewer than {FEW} images, published weights usually give better features: '
                'python -m beitv2_mm finetune CLASSES --from beitv2_base_patch16_224_pt1k_ft21k '
                'or, to continue their pretraining, --from beitv2_base_patch16_224_pt1k here'
            )
        weights = (options.source and find_weights(options.source, options.image_size)) or None
        if weights and options.arch not in (None, weights.arch):
            raise FolderError(f'--arch {options.arch}, but the weights are {weights.arch!r}.')
        if weights and weights.position == 'layerwise':
            raise FolderError(
                f'--from {options.source} is a fine-tuned network, with a table of positions for '
                'each block: pretraining continues from a pretraining, which shares one.'
            )
        arch = weights.arch if weights else options.arch or 'tiny'
        size = image_size(options.image_size or found.short_side)
        if weights:
            size = Size(weights.img_size, weights.patch_size)
        elif options.image_size:
            size = exact_size(options.image_size, size.patch)
        left = found.num_images - max(1, min(2000, found.num_images // 10))
        third = options.epochs and max(1, options.epochs // 3)
        plans = {
            name: schedule(name, left, arch, size, machine, epochs, options.batch_size)
            for name, epochs in (('tokenizer', third), ('pretrain', options.epochs))
        }
        teacher = find_teacher(options.teacher, options.out, size.grid)
        last = options.out.resolve() / f'tokenizer/epoch_{plans["tokenizer"].epochs}.pth'
        common = (root, found, arch, size, teacher)
        configs = {
            'tokenizer': recipes.tokenizer(*common, plans['tokenizer'], machine),
            'pretrain': recipes.pretrain(*common, last, plans['pretrain'], machine, weights),
        }
        record_command(options)
        for name, path in files.items():
            _log_plan(name, size, plans[name], logger)
            about = _about(name, options.folder, path, root, size, plans[name], machine)
            write(configs[name], path, about)
    metrics = {'tokenizer': TOKENIZER_METRICS, 'pretrain': PRETRAIN_METRICS}
    stages = Stages(options.out, logger, count=len(files))
    epochs = {name: Config.fromfile(path).train_cfg.max_epochs for name, path in files.items()}
    done: list[str] = []
    for name, path in files.items():
        later = 0.0 if done else epochs['pretrain'] / epochs['tokenizer']  # alike in work
        stages.run(_training(name, path, metrics[name], options, logger, after=done, later=later))
        done.append(name)
    return _report(pretraining_report(stages.results, files, options.folder), options.out, logger)


def finetune(options: FinetuneOptions, logger: logging.Logger) -> Path:
    """Fine-tune a classifier on folders of images, or probe the weights; what is done already is
    skipped. Returns the page.

    Raises:
        FolderError: the folder, weights or out cannot be used.
        StageError: the training failed.
    """
    path = options.out / 'finetune.py'
    found = survey(options.folder, with_label=True)
    require_classes(found)
    if options.out.resolve() == Path(options.source).resolve():
        raise FolderError('--out is --from: give the classifier a folder of its own.')
    if is_new(options, [path]):
        machine = this_machine(options.gpus)
        _log_survey(found, logger)
        weights = find_weights(options.source, options.image_size)
        held_out = max(1, min(50, min(found.classes.values()) // 5, MOST // len(found.classes)))
        left = found.num_images - held_out * len(found.classes)
        size = Size(weights.img_size, weights.patch_size)
        plan = schedule(
            'finetune', left, weights.arch, size, machine, options.epochs, options.batch_size
        )
        head: recipes.Head = 'knn' if options.probe else options.head
        if head != 'knn':
            _log_plan('finetune', size, plan, logger)
        cfg = recipes.finetune(config_root(), found, weights, held_out, plan, machine, head)
        record_command(options)
        write(cfg, path, _about(head, options.folder, path, config_root(), size, plan, machine))
    seeds = options.seeds or (3 if options.scratch else 1)
    count = 1 if options.probe else seeds * (1 + options.scratch)
    stages = Stages(options.out, logger, count)
    if options.probe:
        settings = Config.fromfile(path).to_dict()
        stages.run(Stage('probe', settings, lambda folder: _test(path, folder, logger)))
    else:
        _run_finetunings(stages, options, path, logger, seeds)
    report = finetuning_report(stages.results, path, found, options)
    return _report(report, options.out, logger)


def _run_finetunings(
    stages: Stages, options: FinetuneOptions, path: Path, logger: logging.Logger, seeds: int
) -> None:
    scratch: dict[str, object] = {
        'model.backbone.init_cfg.checkpoint': None,
        'optim_wrapper.paramwise_cfg.layer_decay_rate': 1.0,
    }
    ways: dict[str, dict[str, object]] = {'finetune': {}}
    if options.scratch:
        ways['scratch'] = scratch
    later = seeds * len(ways)
    for seed in range(seeds):
        for way, changes in ways.items():
            later -= 1
            name = f'{way}_seed{seed}' if seed else way
            values = {**changes, 'randomness.seed': seed} if seed or changes else {}
            stages.run(
                _training(name, path, FINETUNE_METRICS, options, logger, values, later=later)
            )


def _test(path: Path, folder: Path, logger: logging.Logger) -> Metrics:
    """Top-1 of a config that trains nothing."""
    checkpoint = Config.fromfile(path).model.backbone.init_cfg.checkpoint
    out = folder / 'metrics.json'
    tool = config_root() / 'tools/test.py'
    train([tool, path, checkpoint, '--work-dir', folder, '--out', out], folder, logger)
    metrics = json.loads(out.read_text())
    return {'accuracy/top1': next(v for k, v in metrics.items() if k.endswith('top1'))}


def segment_train(options: SegmentOptions, logger: logging.Logger) -> Path:
    """Train a segmentor on images and masks; what is done already is skipped. Returns the page.

    Raises:
        FolderError: the folder, weights or out cannot be used.
        StageError: the training failed.
    """
    root, path = config_root(), options.out / 'segment.py'
    if options.out.resolve() == Path(options.source).resolve():
        raise FolderError('--out is --from: give the segmentor a folder of its own.')
    if is_new(options, [path]):
        machine, found = this_machine(options.gpus), survey_masks(options.folder)
        logger.info(
            f'{found.num_images} images with masks, {len(found.classes)} classes '
            f'({", ".join(found.classes[:5])}{", ..." if found.classes[5:] else ""}), '
            f'{found.short_side} px on the short side'
        )
        weights = find_weights(options.source, options.image_size)
        size = segmentation.crop_size(found, weights, machine, options.image_size)
        plan = schedule(
            'segment',
            len(found.train),
            weights.arch,
            size,
            machine,
            options.epochs,
            options.batch_size,
        )
        _log_plan('segment', size, plan, logger)
        cfg = segmentation.segment(root, found, weights, size, plan, machine, options.out)
        record_command(options)
        segmentation.write_lists(found, options.out)
        write(cfg, path, _about('segment', options.folder, path, root, size, plan, machine))
    stages = Stages(options.out, logger)
    stages.run(_training('segment', path, SEGMENT_METRICS, options, logger))
    report = segmenting_report(stages.results, path, options.folder)
    return _report(report, options.out, logger)


def _log_survey(found: Survey, logger: logging.Logger) -> None:
    classes = f', {len(found.classes)} folders' if found.classes else ''
    kind = '' if found.channels == COLOURS else f', {found.channels} channels'
    white = '' if found.white is None else f', white is {found.white:g}'
    logger.info(
        f'{found.num_images} images{classes}, {found.short_side} px on the short side{kind}{white}'
    )


def _log_plan(name: str, size: Size, plan: Schedule, logger: logging.Logger) -> None:
    logger.info(
        f'{name}: {plan.epochs} epochs of {plan.steps} steps ({plan.total} in all), '
        f'{plan.images} images a step, {size.pixels} px in patches of {size.patch} px'
    )


def _about(
    task: str, folder: Path, path: Path, root: Path, size: Size, plan: Schedule, machine: Machine
) -> str:
    """The head of a config: what was chosen, and why."""
    what = {
        'tokenizer': 'Visual tokenizer',
        'pretrain': 'Masked image modelling',
        'full': 'Classifier',
        'linear': 'Linear classifier of frozen features',
        'knn': 'Weighted k-NN of frozen features',
        'segment': 'Segmentor',
    }[task]
    memory = f'a GPU of {machine.gpu_memory / 2**30:.0f} GiB' if machine.gpu_memory else 'CPU'
    return (
        f'{what} on {folder.resolve()}, written by python -m beitv2_mm.\n\n'
        f'Chosen for this folder and machine ({memory}, {machine.cores} cores): images of '
        f'{size.pixels} px in\npatches of {size.patch} px, batch size {plan.batch}, '
        f'{plan.epochs} epochs of {plan.steps} steps.\n'
        f'Run again, edited or not:\n'
        f'    python {root / "tools/train.py"} {path.resolve()}'
    )


def _training(
    name: str,
    path: Path,
    metrics: Sequence[str],
    options: Options,
    logger: logging.Logger,
    values: Mapping[str, object] | None = None,
    after: Sequence[str] = (),
    later: float = 0.0,
) -> Stage:
    """A stage that trains a config, with ``values`` changed in it; ``later`` is the work after it,
    in multiples of its own."""

    def action(folder: Path) -> Metrics:
        return run_config(
            config_root(),
            path,
            folder,
            metrics,
            logger,
            values,
            gpus=options.gpus or 1,
            later=later,
        )

    content = Config.fromfile(path).to_dict() | {'options': dict(values or {})}
    return Stage(name, content, action, list(after))


def _report(report: Report, out: Path, logger: logging.Logger) -> Path:
    log_table(report, logger)
    return write_report(report, out)
