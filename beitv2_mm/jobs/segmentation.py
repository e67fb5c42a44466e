"""The config of a segmentor on a folder of images and masks."""

from pathlib import Path

from mmengine.config import Config, ConfigDict

from beitv2_mm.checkpoint.atomic import write_atomic
from beitv2_mm.jobs.choices import Machine, Schedule, Size, learning_rate
from beitv2_mm.jobs.mask_survey import MaskSurvey
from beitv2_mm.jobs.recipes import KEYS
from beitv2_mm.jobs.weights import Weights
from beitv2_mm.layers.arch import get_arch

SEGMENT = 'configs/segmentation/beitv2_base_1xb8_20k_folder.py'
LISTS = {'train': 'train.txt', 'val': 'val.txt'}


def crop_size(found: MaskSurvey, weights: Weights, on: Machine, chosen: int | None) -> Size:
    """Crops of the training: of 512 px of photographs on a GPU, otherwise, or where one is chosen,
    those of ``weights``."""
    if chosen or not on.gpu_memory:
        return Size(weights.img_size, weights.patch_size)
    pixels = min(512, max(found.short_side, weights.img_size))
    return Size(round(pixels / weights.patch_size) * weights.patch_size, weights.patch_size)


def write_lists(found: MaskSurvey, out: Path) -> None:
    """The names of the images to train and to validate on."""
    for subset, name in LISTS.items():
        write_atomic(out / name, ('\n'.join(getattr(found, subset)) + '\n').encode())


def segment(
    root: Path,
    found: MaskSurvey,
    weights: Weights,
    size: Size,
    plan: Schedule,
    on: Machine,
    out: Path,
) -> Config:
    """UPerNet on the transformer of ``weights``."""
    cfg = Config.fromfile(root / SEGMENT)
    arch, count = get_arch(weights.arch), len(found.classes)
    depth, dims, crop = arch.num_layers, arch.embed_dims, (size.pixels, size.pixels)
    blocks = tuple(round(depth * part / 12) - 1 for part in (4, 6, 8, 12))
    init = weights.backbone() | dict(img_size=size.pixels)
    init.setdefault('layer_scale_init_value', None)
    cfg.model.backbone.update(init, out_indices=blocks, drop_path_rate=0.0 if plan.short else 0.15)
    cfg.model.data_preprocessor.size = crop
    heads = dict(num_classes=count, patch_size=size.patch)
    cfg.model.decode_head.update(heads, in_channels=[dims] * 4, channels=dims)
    cfg.model.auxiliary_head.update(heads, in_channels=dims, channels=min(dims, 256))
    cfg.model.test_cfg = dict(
        mode='slide', crop_size=crop, stride=(2 * size.pixels // 3,) * 2, windows_per_batch=8
    )
    for subset in LISTS:
        loader = cfg[f'{subset}_dataloader']
        workers = min(4, on.cores) if on.gpu_memory else 1
        loader.update(num_workers=workers, pin_memory=bool(on.gpu_memory))
        loader.dataset.update(
            classes=found.classes,
            data_root=str(found.folder.resolve()),
            data_prefix=dict(img_path='images', seg_map_path='masks'),
            ann_file=str((out / LISTS[subset]).resolve()),
        )
        _resize(loader.dataset.pipeline, size)
    cfg.train_dataloader.batch_size = plan.batch
    every = max(1, plan.every * plan.steps)
    warmup, decay = cfg.param_scheduler
    warmup.update(start_factor=0.01, end=max(1, plan.total // 20))
    decay.update(begin=warmup.end, end=plan.total)
    cfg.train_cfg.update(max_iters=plan.total, val_interval=every)
    cfg.optim_wrapper.optimizer.lr = learning_rate('segment', weights.arch, plan)
    if dims > 768:  # as in the recipes of large
        cfg.optim_wrapper.paramwise_cfg.layer_decay_rate = 0.9
    cfg.default_hooks.checkpoint.update(interval=every)
    cfg.default_hooks.logger.interval = min(50, max(1, plan.steps // 4))
    cfg.auto_scale_lr.base_batch_size = plan.images
    for name in ('dataloader', 'evaluator', 'cfg'):
        cfg[f'test_{name}'] = cfg[f'val_{name}']
    return Config({key: cfg[key] for key in KEYS if key in cfg})


def _resize(pipeline: list[ConfigDict], size: Size) -> None:
    for step in pipeline:
        if 'scale' in step:
            step.scale = (4 * size.pixels, size.pixels)
        if 'crop_size' in step:
            step.crop_size = (size.pixels, size.pixels)
