"""The configs of a folder: shipped recipes with the chosen numbers, written out whole."""

import math
from pathlib import Path
from typing import Literal

from mmengine.config import Config

from beitv2_mm.datasets.pixel_rules import COLOURS
from beitv2_mm.jobs.choices import Schedule, num_codes
from beitv2_mm.jobs.recipe_parts import BANDS, feed, finish_epochs, ordered, shipped, take_bands
from beitv2_mm.jobs.survey import Survey
from beitv2_mm.jobs.teachers import Teacher
from beitv2_mm.jobs.weights import Weights
from beitv2_mm.layers.arch import get_arch
from beitv2_mm.registry import type_name

TOKENIZER = 'configs/pretrain/vqkd_small_clip_1xb64_100e_folder.py'
PRETRAIN = 'configs/pretrain/beitv2_small_1xb128_300e_folder.py'
Head = Literal['full', 'linear', 'knn']
CLASSIFIERS: dict[Head, str] = {
    'full': 'configs/classification/beitv2_base_8xb128_100e_in1k.py',
    'linear': 'configs/classification/linear_base_8xb128_50e_in1k.py',
    'knn': 'configs/classification/knn_base_8xb128_in1k.py',
}
FAST = 'configs/_base_/fast_pipelines.py'


def tokenizer(found: Survey, teacher: Teacher, plan: Schedule) -> Config:
    """The tokenizer's config."""
    cfg = shipped(TOKENIZER, _tokenizer_sizes('model', found, teacher, plan))
    cfg.model.quantizer.revive_after = 2 if plan.short else 100
    cfg.val_evaluator.num_codes = cfg.model.quantizer.num_codes
    cfg.model.teacher = dict(type='beitv2_mm.models.TimmTeacher', **teacher.settings)
    if found.channels != COLOURS:
        # the first three as red, green and blue; with fewer, the first one for all
        cfg.model.teacher.channels = (0, 1, 2) if found.channels > COLOURS else (0, 0, 0)
        cfg.model.encoder.in_channels = found.channels
        take_bands(cfg, 'band_train_pipeline', 'band_test_pipeline')
    return finish_epochs(cfg, found, plan, plan.learning_rate)


def pretrain(
    found: Survey, teacher: Teacher, checkpoint: Path, plan: Schedule, weights: Weights | None
) -> Config:
    """The config of masked image modelling; ``checkpoint`` is the tokenizer's, ``weights`` are what
    the transformer starts from."""
    cfg = shipped(PRETRAIN, _tokenizer_sizes('model.tokenizer', found, teacher, plan))
    drop_path = 0.0 if plan.short else 0.1
    cfg.merge_from_dict(
        {
            'model.backbone.arch': plan.arch,
            'model.backbone.img_size': plan.size.pixels,
            'model.backbone.patch_size': plan.size.patch,
            'model.backbone.drop_path_rate': drop_path,
            'model.neck.drop_path_rate': drop_path,
            'model.head.num_codes': cfg.model.tokenizer.quantizer.num_codes,
            'model.tokenizer.init_cfg.checkpoint': str(checkpoint),
        }
    )
    _start(cfg, plan, weights)
    if plan.short:  # the bias starts at zero and has few steps to learn
        keys = cfg.optim_wrapper.paramwise_cfg.custom_keys
        keys['relative_position_bias_table'] = dict(lr_mult=10.0)
    if found.channels != COLOURS:
        cfg.model.update(mean=found.mean, std=found.std)
        cfg.model.backbone.in_channels = found.channels
        cfg.model.tokenizer.encoder.in_channels = found.channels
        take_bands(cfg, 'band_mim_pipeline', 'band_mim_test_pipeline')
    return finish_epochs(cfg, found, plan, plan.learning_rate)


def _start(cfg: Config, plan: Schedule, weights: Weights | None) -> None:
    """What the transformer starts from: ``weights``, or random numbers that suit its size."""
    if weights is not None:
        kept = cfg.model.backbone.position if weights.position == 'shared' else weights.position
        cfg.model.backbone.update(weights.backbone(), position=kept)
        if weights.prefix is None:  # the neck may be in the file, too
            cfg.model.backbone.pop('init_cfg')
            cfg.load_from = weights.checkpoint
        return
    start = []
    if plan.size.patch < 8:  # few inputs a patch: the usual small weights would hide the picture
        start.append(dict(type='TruncNormal', layer='Conv2d', std=0.1))
    if plan.short:  # the usual 0.02 belongs to width 768 and long schedules
        std = get_arch(plan.arch).embed_dims ** -0.5
        linear = dict(type='TruncNormal', layer='Linear', std=std)
        start.append(linear)
        cfg.model.neck.init_cfg = linear
    cfg.model.backbone.init_cfg = start or None


def _tokenizer_sizes(
    where: str, found: Survey, teacher: Teacher, plan: Schedule
) -> dict[str, object]:
    arch = get_arch(plan.arch)
    return {
        f'{where}.encoder.arch': plan.arch,
        f'{where}.encoder.img_size': plan.size.pixels,
        f'{where}.encoder.patch_size': plan.size.patch,
        f'{where}.decoder.arch.embed_dims': arch.embed_dims,
        f'{where}.decoder.arch.num_layers': 3,
        f'{where}.decoder.arch.num_heads': arch.num_heads,
        f'{where}.quantizer.num_codes': num_codes(plan.arch, found.num_images, plan.size),
        f'{where}.target_dims': teacher.dims,
        f'{where}.standardize_target': teacher.convolutional,
    }


def finetune(
    found: Survey, weights: Weights, held_out: int, plan: Schedule, head: Head = 'full'
) -> Config:
    """The config of a classifier on the transformer of ``weights``; ``held_out`` images of each
    class validate. ``head='linear'`` trains nothing else, 'knn' nothing at all."""
    cfg = shipped(CLASSIFIERS[head])
    cfg.model.data_preprocessor.num_classes = len(found.classes)
    cfg.model.backbone.update(weights.backbone())
    if found.channels != COLOURS:
        cfg.model.backbone.in_channels = found.channels
        cfg.model.data_preprocessor.update(
            mean=[255 * value for value in found.mean], std=[255 * value for value in found.std]
        )
    split = dict(with_label=True, val_per_class=held_out)
    if head == 'knn':
        return _neighbours(cfg, found, split, plan)
    arch = get_arch(plan.arch)
    cfg.train_dataloader.dataset.update(split, subset='train')
    cfg.val_dataloader.dataset.update(split, subset='val')
    cfg.model.head.update(num_classes=len(found.classes), in_channels=arch.embed_dims)
    cfg.val_evaluator.topk = (1, 5) if len(found.classes) > 5 else (1,)
    if found.channels != COLOURS:
        take_bands(cfg, 'band_train_pipeline', 'band_test_pipeline')
    else:
        _take_fast_pipeline(cfg, plan)
    if plan.short:  # too few steps for what makes training harder
        cfg.model.train_cfg = None
    if head == 'linear':
        cfg.model.backbone.frozen_stages = arch.num_layers
        return finish_epochs(cfg, found, plan, 1e-3 * math.sqrt(plan.images / 32))
    cfg.model.backbone.drop_path_rate = 0.0 if plan.short else 0.1
    large = arch.embed_dims > 768
    cfg.optim_wrapper.paramwise_cfg.layer_decay_rate = 0.8 if large else 0.75
    return finish_epochs(cfg, found, plan, plan.learning_rate)


def _neighbours(cfg: Config, found: Survey, split: dict, plan: Schedule) -> Config:
    """The images held out ask those to train on for their class."""
    bank = cfg.test_evaluator.bank
    for loader, subset in ((cfg.test_dataloader, 'val'), (bank, 'train')):
        loader.dataset.update(split, subset=subset)
        if found.channels != COLOURS:
            loader.dataset.pipeline = shipped(BANDS).band_test_pipeline
        feed(loader, found, plan)
    bank.dataset.test_mode = False  # another image replaces an unreadable one
    cfg.test_evaluator.k = min(20, plan.steps * plan.images)
    return ordered(cfg)


def _take_fast_pipeline(cfg: Config, plan: Schedule) -> None:
    """The tokenizer's fast pipeline crops and flips as the recipe does, on bytes."""
    load_crop_flip = shipped(FAST).fast_tokenizer_pipeline[:2]
    replaced = {'LoadImageFromFile', 'RandomResizedCrop', 'RandomFlip'}
    if plan.short:
        replaced |= {'RandAugment', 'RandomErasing'}
    dataset = cfg.train_dataloader.dataset
    rest = [step for step in dataset.pipeline if type_name(step) not in replaced]
    dataset.pipeline = [*load_crop_flip, *rest]
