"""The configs of a folder: shipped recipes with the chosen numbers, written out whole."""

import math
from pathlib import Path
from typing import Literal

from mmengine.config import Config

from beitv2_mm.datasets.pixel_rules import COLOURS
from beitv2_mm.jobs.choices import Machine, Schedule, Size, learning_rate, num_codes
from beitv2_mm.jobs.recipe_parts import BANDS, feed, finish, ordered, take_bands
from beitv2_mm.jobs.survey import Survey
from beitv2_mm.jobs.teachers import Teacher
from beitv2_mm.jobs.weights import Weights
from beitv2_mm.layers.arch import get_arch
from beitv2_mm.registry import type_name

TOKENIZER = 'configs/pretrain/vqkd_small_clip_1xb64_100e_folder.py'
PRETRAIN = 'configs/pretrain/beitv2_small_1xb128_300e_folder.py'
FINETUNE = 'configs/classification/beitv2_base_8xb128_100e_in1k.py'
LINEAR = 'configs/classification/linear_base_8xb128_50e_in1k.py'
KNN = 'configs/classification/knn_base_8xb128_in1k.py'
FAST = 'configs/_base_/fast_pipelines.py'
Head = Literal['full', 'linear', 'knn']


def tokenizer(
    root: Path,
    found: Survey,
    arch: str | dict,
    size: Size,
    teacher: Teacher,
    plan: Schedule,
    on: Machine,
) -> Config:
    """The tokenizer's config."""
    cfg = Config.fromfile(root / TOKENIZER)
    codes = num_codes(arch, found.num_images, size)
    cfg.merge_from_dict(
        {
            **_tokenizer_sizes('model', arch, size, codes, teacher),
            'model.quantizer.revive_after': 2 if plan.short else 100,
            'val_evaluator.num_codes': codes,
        }
    )
    cfg.model.teacher = dict(type='beitv2_mm.models.TimmTeacher', **teacher.settings)
    if found.channels != COLOURS:
        # the first three as red, green and blue; with fewer, the first one for all
        seen = (0, 1, 2) if found.channels > COLOURS else (0, 0, 0)
        cfg.model.teacher.channels = seen
        cfg.model.encoder.in_channels = found.channels
        take_bands(cfg, root, 'band_train_pipeline', 'band_test_pipeline')
    return finish(cfg, found, size, plan, learning_rate('tokenizer', arch, plan), on)


def pretrain(
    root: Path,
    found: Survey,
    arch: str | dict,
    size: Size,
    teacher: Teacher,
    checkpoint: Path,
    plan: Schedule,
    on: Machine,
    weights: Weights | None = None,
) -> Config:
    """The config of masked image modelling; ``checkpoint`` is the tokenizer's, ``weights`` are what
    the transformer starts from."""
    cfg = Config.fromfile(root / PRETRAIN)
    codes = num_codes(arch, found.num_images, size)
    cfg.merge_from_dict(
        {
            'model.backbone.arch': arch,
            'model.backbone.img_size': size.pixels,
            'model.backbone.patch_size': size.patch,
            'model.backbone.drop_path_rate': 0.0 if plan.short else 0.1,
            'model.neck.drop_path_rate': 0.0 if plan.short else 0.1,
            'model.head.num_codes': codes,
            **_tokenizer_sizes('model.tokenizer', arch, size, codes, teacher),
            'model.tokenizer.init_cfg.checkpoint': str(checkpoint),
        }
    )
    _start(cfg, size, plan, weights)
    if plan.short:  # the bias starts at zero and has few steps to learn
        cfg.optim_wrapper.paramwise_cfg.custom_keys['relative_position_bias_table'] = dict(
            lr_mult=10.0
        )
    if found.channels != COLOURS:
        cfg.merge_from_dict(
            {
                'model.mean': found.mean,
                'model.std': found.std,
                'model.backbone.in_channels': found.channels,
                'model.tokenizer.encoder.in_channels': found.channels,
            }
        )
        take_bands(cfg, root, 'band_mim_pipeline', 'band_mim_test_pipeline')
    return finish(cfg, found, size, plan, learning_rate('pretrain', arch, plan), on)


def _start(cfg: Config, size: Size, plan: Schedule, weights: Weights | None) -> None:
    """What the transformer starts from: ``weights``, or random numbers that suit its size."""
    if weights is not None:
        kept = cfg.model.backbone.position if weights.position == 'shared' else weights.position
        cfg.model.backbone.update(weights.backbone(), position=kept)
        if weights.prefix is None:  # the neck may be in the file, too
            cfg.model.backbone.pop('init_cfg')
            cfg.load_from = weights.checkpoint
        return
    start = []
    if size.patch < 8:  # few inputs a patch: the usual small weights would hide the picture
        start.append(dict(type='TruncNormal', layer='Conv2d', std=0.1))
    if plan.short:  # the usual 0.02 belongs to width 768 and long schedules
        std = get_arch(cfg.model.backbone.arch).embed_dims ** -0.5
        linear = dict(type='TruncNormal', layer='Linear', std=std)
        start.append(linear)
        cfg.model.neck.init_cfg = linear
    cfg.model.backbone.init_cfg = start or None


def finetune(
    root: Path,
    found: Survey,
    weights: Weights,
    held_out: int,
    plan: Schedule,
    on: Machine,
    head: Head = 'full',
) -> Config:
    """The config of a classifier on the transformer of ``weights``; ``held_out`` images of each
    class validate. ``head='linear'`` trains nothing else, 'knn' nothing at all."""
    cfg = Config.fromfile(root / {'full': FINETUNE, 'linear': LINEAR, 'knn': KNN}[head])
    split = dict(with_label=True, val_per_class=held_out)
    cfg.merge_from_dict({'model.data_preprocessor.num_classes': len(found.classes)})
    cfg.model.backbone.update(weights.backbone())
    if found.channels != COLOURS:
        cfg.model.backbone.in_channels = found.channels
        cfg.model.data_preprocessor.update(
            mean=[255 * value for value in found.mean], std=[255 * value for value in found.std]
        )
    size, arch = Size(weights.img_size, weights.patch_size), get_arch(weights.arch)
    if head == 'knn':
        for loader, subset in (
            (cfg.test_dataloader, 'val'),
            (cfg.test_evaluator.bank, 'train'),
        ):
            loader.dataset.update(split, subset=subset)
            if found.channels != COLOURS:
                loader.dataset.pipeline = Config.fromfile(root / BANDS).band_test_pipeline
            feed(loader, found, size, plan, on)
        cfg.test_evaluator.bank.dataset.test_mode = False  # another image for an unreadable one
        cfg.test_evaluator.k = min(20, plan.steps * plan.images)
        return ordered(cfg)
    cfg.merge_from_dict(
        {
            'model.head.num_classes': len(found.classes),
            'model.head.in_channels': arch.embed_dims,
            'train_dataloader.dataset': dict(split, subset='train'),
            'val_dataloader.dataset': dict(split, subset='val'),
            'val_evaluator.topk': (1, 5) if len(found.classes) > 5 else (1,),
        }
    )
    if found.channels != COLOURS:
        take_bands(cfg, root, 'band_train_pipeline', 'band_test_pipeline')
    else:
        _take_fast_pipeline(cfg, root, plan)
    if plan.short:  # too few steps for what makes training harder
        cfg.model.train_cfg = None
    if head == 'linear':
        cfg.model.backbone.frozen_stages = arch.num_layers
        return finish(cfg, found, size, plan, 1e-3 * math.sqrt(plan.images / 32), on)
    cfg.model.backbone.drop_path_rate = 0.0 if plan.short else 0.1
    large = arch.embed_dims > 768
    cfg.optim_wrapper.paramwise_cfg.layer_decay_rate = 0.8 if large else 0.75
    return finish(cfg, found, size, plan, learning_rate('finetune', weights.arch, plan), on)


def _take_fast_pipeline(cfg: Config, root: Path, plan: Schedule) -> None:
    """The tokenizer's fast pipeline crops and flips as the recipe does, on bytes."""
    load_crop_flip = Config.fromfile(root / FAST).fast_tokenizer_pipeline[:2]
    replaced = {'LoadImageFromFile', 'RandomResizedCrop', 'RandomFlip'}
    if plan.short:
        replaced |= {'RandAugment', 'RandomErasing'}
    dataset = cfg.train_dataloader.dataset
    rest = [step for step in dataset.pipeline if type_name(step) not in replaced]
    dataset.pipeline = [*load_crop_flip, *rest]


def _tokenizer_sizes(
    where: str, arch: str | dict, size: Size, codes: int, teacher: Teacher
) -> dict[str, object]:
    dims = get_arch(arch)
    return {
        f'{where}.encoder.arch': arch,
        f'{where}.encoder.img_size': size.pixels,
        f'{where}.encoder.patch_size': size.patch,
        f'{where}.decoder.arch.embed_dims': dims.embed_dims,
        f'{where}.decoder.arch.num_layers': 3,
        f'{where}.decoder.arch.num_heads': dims.num_heads,
        f'{where}.quantizer.num_codes': codes,
        f'{where}.target_dims': teacher.dims,
        f'{where}.standardize_target': teacher.convolutional,
    }
