"""`python -m beitv2_mm pretrain`: a tokenizer and a transformer, from images without labels."""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from mmengine.config import Config

from beitv2_mm import config_root
from beitv2_mm.apis.files import load_image
from beitv2_mm.datasets import UnreadableImageError
from beitv2_mm.datasets.pixel_rules import COLOURS
from beitv2_mm.jobs import recipes
from beitv2_mm.jobs.choices import Size, exact_size, image_size, schedule, this_machine
from beitv2_mm.jobs.options import PretrainOptions, is_new, record_command
from beitv2_mm.jobs.pictures import (
    ONE_TRAINING,
    RULES,
    curves_pictures,
    describe_machine,
    pictures_of_codes,
    pretraining_panels,
    records,
)
from beitv2_mm.jobs.quickstart_settings import PRETRAIN_METRICS, TOKENIZER_METRICS
from beitv2_mm.jobs.stages import Results, Stages, artifact
from beitv2_mm.jobs.survey import FolderError, survey
from beitv2_mm.jobs.teachers import find_teacher
from beitv2_mm.jobs.training import training_stage
from beitv2_mm.jobs.weights import Weights, find_weights
from beitv2_mm.jobs.writing import write_config
from beitv2_mm.registry import DATASETS
from beitv2_mm.visualization.outcomes import PretrainingReport
from beitv2_mm.visualization.report_page import publish

FEW = 10_000  # images, below which a pretraining from nothing learns little
NUM_IMAGES = 500  # of those held out, in the pictures


def pretrain(options: PretrainOptions, logger: logging.Logger) -> Path:
    """Train a tokenizer and pretrain with it; what is done already is skipped. Returns the page.

    Raises:
        FolderError: the folder, teacher, weights or out cannot be used.
        StageError: a training failed.
    """
    files = {name: options.out / f'{name}.py' for name in ('tokenizer', 'pretrain')}
    if is_new(options, files.values()):
        _write_configs(options, files, logger)
    metrics = {'tokenizer': TOKENIZER_METRICS, 'pretrain': PRETRAIN_METRICS}
    stages = Stages(options.out, logger, count=len(files))
    epochs = {name: Config.fromfile(path).train_cfg.max_epochs for name, path in files.items()}
    done: list[str] = []
    for name, path in files.items():
        later = 0.0 if done else epochs['pretrain'] / epochs['tokenizer']  # alike in work
        stages.run(
            training_stage(
                name,
                path,
                metrics[name],
                logger,
                after=list(done),
                gpus=options.gpus or 1,
                later=later,
            )
        )
        done.append(name)
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
    common = (config_root(), found, arch, size, teacher)
    configs = {
        'tokenizer': recipes.tokenizer(*common, plans['tokenizer'], machine),
        'pretrain': recipes.pretrain(*common, last, plans['pretrain'], machine, weights),
    }
    record_command(options)
    for name, path in files.items():
        logger.info(f'{name}: {plans[name].describe(size)}')
        write_config(configs[name], path, name, options.folder, size, plans[name], machine)


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
    """Figures and pictures of a pretraining, from its stages' results."""
    tokenizer, mim = results['tokenizer'], results['pretrain']
    loaded = {name: Config.fromfile(path) for name, path in configs.items()}
    images = read_held_out(loaded['tokenizer'])
    out = mim.folder.parent
    return PretrainingReport(
        title=f'BEiT v2 pretrained on {folder.resolve().name}',
        summary='A visual tokenizer learned from a teacher network, and a transformer pretrained '
        "to predict the tokenizer's codes of hidden patches. No labels were used.",
        cosine=tokenizer.metrics['cosine'],
        cosine_constant=tokenizer.metrics.get('cosine_constant'),
        codebook_usage=tokenizer.metrics['codebook_usage'],
        mim_accuracy=mim.metrics['accuracy_main'],
        mim_accuracy_aggregation=mim.metrics['accuracy_aggregation'],
        accuracy_constant=mim.metrics.get('accuracy_constant'),
        num_held_out=len(DATASETS.build(loaded['pretrain'].val_dataloader.dataset)),
        stages=records(results),
        machine=describe_machine('auto'),
        settings=[(name, str(path), {}) for name, path in configs.items()],
        limits=[
            RULES,
            ONE_TRAINING,
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
                f"FeatureInferencer('{configs['pretrain']}', '{artifact(mim.folder)}')('x.jpg')",
            ),
        ],
        pictures=[
            *curves_pictures(
                pretraining_panels(tokenizer.folder, mim.folder),
                'Measured on the training images while they were trained on.',
            ),
            *pictures_of_codes(
                images,
                (loaded['tokenizer'], loaded['pretrain']),
                (artifact(tokenizer.folder), artifact(mim.folder)),
                'images held out',
            ),
        ],
    )


def read_held_out(tokenizer: Config) -> np.ndarray:
    """Images that the tokenizer was validated on, uint8 (M, H, W, C) of its size; unreadable ones
    are left out."""
    dataset = DATASETS.build(tokenizer.val_dataloader.dataset)
    size, images = tokenizer.model.encoder.img_size, []
    for index in range(min(len(dataset), NUM_IMAGES)):
        if dataset.channels != COLOURS:  # as the validation sees them
            images.append(dataset[index]['inputs'].permute(1, 2, 0).numpy())
            continue
        try:
            path = dataset.get_data_info(index)['img_path']
            image = load_image(path, (size, size), dataset.white)
        except UnreadableImageError:
            continue
        images.append(np.asarray(image))
    return np.stack(images)
