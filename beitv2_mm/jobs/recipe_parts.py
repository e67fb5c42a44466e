"""What the configs of all jobs have in common: data, sizes in the pipelines, schedule."""

from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config, ConfigDict

from beitv2_mm.datasets.pixel_rules import COLOURS
from beitv2_mm.jobs.choices import Machine, Schedule, Size
from beitv2_mm.jobs.survey import Survey
from beitv2_mm.registry import type_name

BANDS = 'configs/_base_/band_pipelines.py'
# What a runner reads; a config's other names, e.g. of a pipeline used twice, say it again.
KEYS = (
    'model', 'train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler', 'auto_scale_lr',
    'val_dataloader', 'val_cfg', 'val_evaluator', 'test_dataloader', 'test_cfg', 'test_evaluator',
    'default_scope', 'default_hooks', 'custom_hooks', 'env_cfg', 'visualizer', 'log_level',
    'load_from', 'resume', 'randomness', 'log_processor', 'sync_bn', 'model_wrapper_cfg',
)  # fmt: skip


def finish(
    cfg: Config, found: Survey, size: Size, plan: Schedule, rate: float, on: Machine
) -> Config:
    """What all trainings have: data, sizes in the pipelines, schedule, hooks."""
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        feed(loader, found, size, plan, on)
    cfg.train_cfg.update(max_epochs=plan.epochs, val_interval=plan.every)
    cfg.optim_wrapper.optimizer.lr = rate
    if cfg.param_scheduler.warmup:
        cfg.param_scheduler.update(warmup=plan.warmup, start_lr=rate / 100, min_lr=rate / 100)
    cfg.auto_scale_lr.base_batch_size = plan.images
    cfg.default_hooks.logger.interval = min(50, max(1, plan.steps // 4))
    cfg.default_hooks.checkpoint.interval = plan.every
    for name in ('dataloader', 'evaluator', 'cfg'):
        cfg[f'test_{name}'] = cfg[f'val_{name}']
    return ordered(cfg)


def feed(loader: ConfigDict, found: Survey, size: Size, plan: Schedule, on: Machine) -> None:
    """The folder's images, at the size of the network."""
    loader.update(
        batch_size=plan.batch,
        num_workers=min(8, on.cores) if on.gpu_memory else 1,
        pin_memory=bool(on.gpu_memory),
    )
    loader.dataset.data_root = str(found.folder.resolve())
    loader.dataset.update(_rules(found))
    resize(loader.dataset.pipeline, size)


def _rules(found: Survey) -> dict[str, object]:
    """How the images are read, where they are not the usual ones."""
    rules = dict(white=found.white, channels=found.channels)
    usual = dict(white=None, channels=COLOURS)
    return {key: value for key, value in rules.items() if value != usual[key]}


def take_bands(cfg: Config, root: Path, train: str, validation: str) -> None:
    """Pipelines that take no channel for a colour."""
    pipelines = Config.fromfile(root / BANDS)
    cfg.train_dataloader.dataset.pipeline = pipelines[train]
    cfg.val_dataloader.dataset.pipeline = pipelines[validation]


def ordered(cfg: Config) -> Config:
    """The config with the keys that a runner reads, and no others."""
    return Config({key: cfg[key] for key in KEYS if key in cfg})


def resize(pipeline: Sequence[ConfigDict], size: Size) -> None:
    """The steps' sizes; masks cover two fifths of the patches in blocks of a twelfth at least."""
    for step in pipeline:
        kind = type_name(step)
        if kind == 'TorchvisionTransforms':
            resize(step.transforms, size)
        elif kind == 'RandomResizedCrop':
            step['size' if 'size' in step else 'scale'] = size.pixels  # torchvision's, mmpretrain's
        elif kind == 'ResizeEdge':
            step.scale = round(size.pixels * 8 / 7)
        elif kind == 'Resize':  # torchvision's, of the short side
            step['size'] = round(size.pixels * 8 / 7)
        elif kind == 'CenterCrop':
            step['size' if 'size' in step else 'crop_size'] = size.pixels
        elif kind == 'BlockwiseMask':
            patches = size.grid**2
            step.update(
                patch_size=size.patch,
                num_masked=round(patches * 75 / 196),
                min_block=max(4, patches // 12),
            )
