"""`python -m beitv2_mm finetune`: a classifier from trained weights and a folder for each class."""

import json
import logging
from pathlib import Path

from mmengine.config import Config

from beitv2_mm import config_root
from beitv2_mm.jobs import pictures, recipes
from beitv2_mm.jobs.choices import schedule, this_machine
from beitv2_mm.jobs.options import FinetuneOptions, is_new, record_command
from beitv2_mm.jobs.stages import Metrics, Results, Stage, Stages, artifact
from beitv2_mm.jobs.survey import Survey, require_classes, survey
from beitv2_mm.jobs.training import train, training_stage
from beitv2_mm.jobs.weights import find_weights
from beitv2_mm.jobs.writing import write_config
from beitv2_mm.registry import DATASETS
from beitv2_mm.visualization.accuracy import accuracy
from beitv2_mm.visualization.curves import Panel, read_scalars
from beitv2_mm.visualization.outcomes import ClassifierReport
from beitv2_mm.visualization.report_page import publish

MOST = 5000  # images held out: all are read before the training, to leave out the unreadable ones
ONE_SPLIT = 'One split and one set of weights to start from: the spread is only that of the seeds.'


def finetune(options: FinetuneOptions, logger: logging.Logger) -> Path:
    """Fine-tunes a classifier on folders of images, or probes the weights; what is done already is
    skipped. Returns the page.

    Raises:
        FolderError: the folder, weights or out cannot be used.
        StageError: the training failed.
    """
    path = options.out / 'finetune.py'
    found = survey(options.folder, with_label=True)
    require_classes(found)
    if is_new(options, [path]):
        _write_config(options, found, path, logger)
    seeds = options.seeds or (3 if options.scratch else 1)
    count = 1 if options.probe else seeds * (1 + options.scratch)
    stages = Stages(options.out, logger, count)
    if options.probe:
        settings = Config.fromfile(path).to_dict()
        stages.run(Stage('probe', settings, lambda folder: _test(path, folder, logger)))
    else:
        _run_finetunings(stages, options, path, logger, seeds)
    report = finetuning_report(stages.results, path, found, options)
    return publish(report, options.out, logger)


def _write_config(
    options: FinetuneOptions, found: Survey, path: Path, logger: logging.Logger
) -> None:
    machine = this_machine(options.gpus)
    logger.info(found.describe())
    weights = find_weights(options.source, options.image_size)
    held_out = max(1, min(50, min(found.classes.values()) // 5, MOST // len(found.classes)))
    left = found.num_images - held_out * len(found.classes)
    user = options.epochs, options.batch_size
    plan = schedule('finetune', left, weights.arch, weights.size, machine, *user)
    head: recipes.Head = 'knn' if options.probe else options.head
    if head != 'knn':
        logger.info(f'finetune: {plan.describe()}')
    cfg = recipes.finetune(found, weights, held_out, plan, head)
    record_command(options)
    write_config(cfg, path, head, options.folder, plan)


def _run_finetunings(
    stages: Stages, options: FinetuneOptions, path: Path, logger: logging.Logger, seeds: int
) -> None:
    ways: dict[str, dict[str, object]] = {'finetune': {}}
    if options.scratch:
        ways['scratch'] = {
            'model.backbone.init_cfg.checkpoint': None,
            'optim_wrapper.paramwise_cfg.layer_decay_rate': 1.0,
        }
    later = seeds * len(ways)
    for seed in range(seeds):
        for way, changes in ways.items():
            later -= 1
            stage = training_stage(
                f'{way}_seed{seed}' if seed else way,
                'finetune',
                path,
                logger,
                # The config, which may have been edited, decides the seed of the first.
                {**changes, 'randomness.seed': seed} if seed or changes else {},
                gpus=options.gpus or 1,
                later=later,
            )
            stages.run(stage)


def _test(path: Path, folder: Path, logger: logging.Logger) -> Metrics:
    """The top-1 accuracy of a config that trains nothing."""
    checkpoint = Config.fromfile(path).model.backbone.init_cfg.checkpoint
    out = folder / 'metrics.json'
    tool = config_root() / 'tools/test.py'
    train([tool, path, checkpoint, '--work-dir', folder, '--out', out], folder, logger)
    metrics = json.loads(out.read_text())
    return {'accuracy/top1': next(v for k, v in metrics.items() if k.endswith('top1'))}


def finetuning_report(
    results: Results, config: Path, found: Survey, options: FinetuneOptions
) -> ClassifierReport:
    """Figures of a fine-tuned classifier, or of a probe; beside it those from scratch."""
    cfg = Config.fromfile(config)
    held_out = DATASETS.build((cfg.get('val_dataloader') or cfg.test_dataloader).dataset)
    names = {
        'finetune': dict(full='fine-tuned', linear='linear, frozen features')[options.head],
        'scratch': 'from scratch',
        'probe': 'k-NN of frozen features',
    }
    top1: dict[str, list[float]] = {}
    for stage, result in results.items():
        label = names[stage.split('_seed')[0]]
        top1.setdefault(label, []).append(result.metrics['accuracy/top1'])
    several = len(results) > len(top1)
    usage = []
    if not options.probe:
        checkpoint = artifact(results['finetune'].folder)
        usage = pictures.usage('Classify', 'ClassificationInferencer', config, checkpoint)
    if options.probe or options.head == 'linear':
        usage.append(
            (
                'Train the whole network',
                f'python -m beitv2_mm finetune {options.folder} --from {options.source} '
                f'--out {config.parent}_full',
            )
        )
    return ClassifierReport(
        title=f'Classifier of {found.folder.resolve().name}',
        summary=f'{next(iter(top1))}, from {options.source}.',
        results={label: accuracy(values) for label, values in top1.items()},
        num_images=len(held_out),
        num_classes=len(found.classes),
        largest_class=100 * max(found.classes.values()) / sum(found.classes.values()),
        **pictures.what_ran(results),
        settings=[('finetune', str(config), {})],
        limits=[
            pictures.RULES,
            ONE_SPLIT if several else pictures.ONE_TRAINING,
            'The images held out come from the same folders: new ones may look different.',
        ],
        commands=usage,
        pictures=pictures.curves_pictures(
            [] if options.probe else _panels(results, names),
            'Curves are of the first seed.' if several else '',
        ),
    )


def _panels(results: Results, names: dict[str, str]) -> list[Panel]:
    """Curves of the first seed of each way."""
    runs = {
        label: read_scalars(results[name].folder)
        for name, label in names.items()
        if name in results
    }
    losses = {label: run['loss'] for label, run in runs.items()}
    top1 = {label: run['val/accuracy/top1'] for label, run in runs.items()}
    return [
        Panel('Loss on training images', losses),
        Panel('Top-1 on images held out', top1, x_label='epoch', percent=True),
    ]
