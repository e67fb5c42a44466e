"""`python -m beitv2_mm finetune`: a classifier from trained weights and a folder for each class."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from mmengine.config import Config

from beitv2_mm import config_root
from beitv2_mm.jobs import recipes
from beitv2_mm.jobs.choices import Size, schedule, this_machine
from beitv2_mm.jobs.options import FinetuneOptions, is_new, record_command
from beitv2_mm.jobs.pictures import ONE_TRAINING, RULES, curves_pictures, describe_machine, records
from beitv2_mm.jobs.quickstart_settings import FINETUNE_METRICS
from beitv2_mm.jobs.stages import Metrics, Results, Stage, Stages, artifact
from beitv2_mm.jobs.survey import FolderError, Survey, require_classes, survey
from beitv2_mm.jobs.training import train, training_stage
from beitv2_mm.jobs.weights import find_weights
from beitv2_mm.jobs.writing import write_config
from beitv2_mm.registry import DATASETS
from beitv2_mm.visualization.accuracy import accuracy
from beitv2_mm.visualization.curves import Panel, Scalars, read_scalars
from beitv2_mm.visualization.outcomes import ClassifierReport
from beitv2_mm.visualization.report_page import publish

# Images held out: all of them are read before the training, to leave unreadable ones out.
MOST = 5000
ONE_SPLIT = 'One split and one set of weights to start from: the spread is only that of the seeds.'
FIRST_SEED = 'Curves are of the first seed.'


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
        logger.info(found.describe())
        weights = find_weights(options.source, options.image_size)
        held_out = max(1, min(50, min(found.classes.values()) // 5, MOST // len(found.classes)))
        left = found.num_images - held_out * len(found.classes)
        size = Size(weights.img_size, weights.patch_size)
        plan = schedule(
            'finetune', left, weights.arch, size, machine, options.epochs, options.batch_size
        )
        head: recipes.Head = 'knn' if options.probe else options.head
        if head != 'knn':
            logger.info(f'finetune: {plan.describe(size)}')
        cfg = recipes.finetune(config_root(), found, weights, held_out, plan, machine, head)
        record_command(options)
        write_config(cfg, path, head, options.folder, size, plan, machine)
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
                path,
                FINETUNE_METRICS,
                logger,
                # The config, which may have been edited, decides the seed of the first.
                {**changes, 'randomness.seed': seed} if seed or changes else {},
                gpus=options.gpus or 1,
                later=later,
            )
            stages.run(stage)


def _test(path: Path, folder: Path, logger: logging.Logger) -> Metrics:
    """Top-1 of a config that trains nothing."""
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
    ways = {
        way: accuracy([r.metrics['accuracy/top1'] for n, r in results.items() if _way(n) == way])
        for way in dict.fromkeys(map(_way, results))
    }
    trained = {name: result for name, result in results.items() if name != 'probe'}
    label = dict(full='fine-tuned', linear='linear, frozen features')[options.head]
    names = {'finetune': label, 'scratch': 'from scratch', 'probe': 'k-NN of frozen features'}
    firsts = {names[n]: read_scalars(r.folder) for n, r in trained.items() if n in names}
    panels = _classifier_panels(firsts)
    out = config.parent
    first = next(iter(results.values()))
    usage = []
    if trained:
        usage = [
            ('Classify other images', f'python -m beitv2_mm predict IMAGES --from {out}'),
            (
                'Classify an image in Python',
                'from beitv2_mm.apis import ClassificationInferencer\n'
                f"ClassificationInferencer('{config}', '{artifact(first.folder)}')('x.jpg')",
            ),
        ]
    if options.probe or options.head == 'linear':
        usage.append(
            (
                'Train the whole network',
                f'python -m beitv2_mm finetune {options.folder} --from {options.source} '
                f'--out {out}_full',
            )
        )
    return ClassifierReport(
        title=f'Classifier of {found.folder.resolve().name}',
        summary=f'{label if trained else names["probe"]}, from {options.source}.',
        results={names[way]: value for way, value in ways.items()},
        num_images=len(held_out),
        num_classes=len(found.classes),
        largest_class=100 * max(found.classes.values()) / sum(found.classes.values()),
        stages=records(results),
        machine=describe_machine('auto'),
        settings=[('finetune', str(config), {})],
        limits=[
            RULES,
            ONE_SPLIT if len(results) > len(ways) else ONE_TRAINING,
            'The images held out come from the same folders: new ones may look different.',
        ],
        commands=usage,
        pictures=curves_pictures(panels, FIRST_SEED if len(results) > len(ways) else ''),
    )


def _classifier_panels(runs: Mapping[str, Scalars]) -> list[Panel]:
    """Curves of several ways, by their labels."""
    losses = {label: run['loss'] for label, run in runs.items()}
    top1 = {label: run['val/accuracy/top1'] for label, run in runs.items()}
    return [
        Panel('Loss on training images', losses),
        Panel('Top-1 on images held out', top1, x_label='epoch', percent=True),
    ]


def _way(stage: str) -> str:
    """'scratch_seed2' -> 'scratch'"""
    return stage.split('_seed')[0]
