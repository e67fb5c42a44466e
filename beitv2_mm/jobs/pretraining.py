"""`python -m beitv2_mm pretrain`: a tokenizer and a transformer, from images without labels."""

import logging
from collections.abc import Mapping
from pathlib import Path

from mmengine.config import Config

from beitv2_mm.jobs import pictures, recipes
from beitv2_mm.jobs.choices import exact_size, image_size, schedule, this_machine
from beitv2_mm.jobs.options import PretrainOptions, is_new, record_command
from beitv2_mm.jobs.stages import Results, Stages, artifact
from beitv2_mm.jobs.survey import FolderError, survey
from beitv2_mm.jobs.teachers import find_teacher
from beitv2_mm.jobs.training import training_stage
from beitv2_mm.jobs.weights import Weights, find_weights
from beitv2_mm.jobs.writing import write_config
from beitv2_mm.registry import DATASETS
from beitv2_mm.visualization.outcomes import PretrainingReport
from beitv2_mm.visualization.report_page import publish

FEW = 10_000  # images below which a pretraining from nothing learns little


def pretrain(options: PretrainOptions, logger: logging.Logger) -> Path:
    """Trains a tokenizer and pretrains with it; what is done already is skipped. Returns the page.

    Raises:
        FolderError: the folder, teacher, weights or out cannot be used.
        StageError: a training failed.
    """
    files = {name: options.out / f'{name}.py' for name in ('tokenizer', 'pretrain')}
    if is_new(options, files.values()):
        _write_configs(options, files, logger)
    epochs = {name: Config.fromfile(path).train_cfg.max_epochs for name, path in files.items()}
    later = {'tokenizer': epochs['pretrain'] / epochs['tokenizer'], 'pretrain': 0.0}  # by epochs
    after = {'tokenizer': [], 'pretrain': ['tokenizer']}
    stages, gpus = Stages(options.out, logger, len(files)), options.gpus or 1
    for name, path in files.items():
        stage = training_stage(
            name, name, path, logger, after=after[name], gpus=gpus, later=later[name]
        )
        stages.run(stage)
    return publish(pretraining_report(stages.results, files, options.folder), options.out, logger)


def _write_configs(
    options: PretrainOptions, files: Mapping[str, Path], logger: logging.Logger
) -> None:
    machine, found = this_machine(options.gpus), survey(options.folder)
    logger.info(found.describe())
    if found.num_images < FEW and not options.source:
        logger.warning(
            f'With fewer than {FEW} images, published weights usually give better features: '
            'python -m beitv2_mm finetune CLASSES --from beitv2_base_patch16_224_pt1k_ft21k '
            'or, to continue their pretraining, --from beitv2_base_patch16_224_pt1k here'
        )
    weights = _starting_weights(options)
    arch = weights.arch if weights else options.arch or 'tiny'
    size = weights.size if weights else image_size(options.image_size or found.short_side)
    if options.image_size:
        size = exact_size(options.image_size, size.patch)
    left = found.num_images - max(1, min(2000, found.num_images // 10))
    third = options.epochs and max(1, options.epochs // 3)
    plans = {
        name: schedule(name, left, arch, size, machine, epochs, options.batch_size)
        for name, epochs in (('tokenizer', third), ('pretrain', options.epochs))
    }
    teacher = find_teacher(options.teacher, options.out, size.grid)
    last = options.out.resolve() / f'tokenizer/epoch_{plans["tokenizer"].epochs}.pth'
    configs = {
        'tokenizer': recipes.tokenizer(found, teacher, plans['tokenizer']),
        'pretrain': recipes.pretrain(found, teacher, last, plans['pretrain'], weights),
    }
    record_command(options)
    for name, path in files.items():
        logger.info(f'{name}: {plans[name].describe()}')
        write_config(configs[name], path, name, options.folder, plans[name])


def _starting_weights(options: PretrainOptions) -> Weights | None:
    """What `--from` names."""
    if not options.source:
        return None
    weights = find_weights(options.source, options.image_size)
    if options.arch not in (None, weights.arch):
        raise FolderError(f'--arch {options.arch}, but the weights are {weights.arch!r}.')
    if weights.position == 'layerwise':
        raise FolderError(
            f'--from {options.source} is a fine-tuned network, with a table of positions for '
            'each block: pretraining continues from a pretraining, which shares one.'
        )
    return weights


def pretraining_report(
    results: Results, configs: Mapping[str, Path], folder: Path
) -> PretrainingReport:
    """Figures and pictures of a pretraining, from the results of its stages."""
    loaded = [Config.fromfile(path) for path in configs.values()]
    checkpoint = artifact(results['pretrain'].folder)
    out = configs['pretrain'].parent
    return PretrainingReport(
        title=f'BEiT v2 pretrained on {folder.resolve().name}',
        summary='A visual tokenizer learned from a teacher network, and a transformer pretrained '
        "to predict the tokenizer's codes of hidden patches. No labels were used.",
        **pictures.pretraining_figures(results),
        num_held_out=len(DATASETS.build(loaded[1].val_dataloader.dataset)),
        **pictures.what_ran(results),
        settings=[(name, str(path), {}) for name, path in configs.items()],
        limits=[
            pictures.RULES,
            pictures.ONE_TRAINING,
            'Accuracy on codes tells how well training goes, not how useful the features are: '
            'fine-tune, or probe, to learn that.',
        ],
        commands=[
            (
                'Train a classifier on folders of images, one for each class',
                f'python -m beitv2_mm finetune CLASSES --from {out} --out {out}_classifier',
            ),
            (
                'Use the features in Python',
                'from beitv2_mm.apis import FeatureInferencer\n'
                f"FeatureInferencer('{configs['pretrain']}', '{checkpoint}')('x.jpg')",
            ),
        ],
        pictures=[
            *pictures.curves_pictures(
                pictures.pretraining_panels(results),
                'Measured on the training images while they were trained on.',
            ),
            *pictures.pictures_of_codes(loaded, results, 'images held out', count=500),
        ],
    )
