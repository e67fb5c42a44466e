"""What the configs of all jobs have in common: data, sizes in the pipelines, schedule."""

from collections.abc import Mapping, Sequence

from mmengine.config import Config, ConfigDict

from beitv2_mm import config_root
from beitv2_mm.datasets.pixel_rules import COLOURS
from beitv2_mm.jobs.choices import Schedule, Size
from beitv2_mm.jobs.survey import Survey
from beitv2_mm.registry import type_name

BANDS = 'configs/_base_/band_pipelines.py'
# What a runner reads; other names of a config, e.g. of a pipeline used twice, only repeat it.
KEYS = (
    'model', 'train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler', 'auto_scale_lr',
    'val_dataloader', 'val_cfg', 'val_evaluator', 'test_dataloader', 'test_cfg', 'test_evaluator',
    'default_scope', 'default_hooks', 'custom_hooks', 'env_cfg', 'visualizer', 'log_level',
    'load_from', 'resume', 'randomness', 'log_processor', 'sync_bn', 'model_wrapper_cfg',
)  # fmt: skip


def shipped(name: str, changes: Mapping[str, object] | None = None) -> Config:
    """A config of this package, with ``changes`` (dotted names -> values)."""
    cfg = Config.fromfile(config_root() / name)
    cfg.merge_from_dict(dict(changes or {}))
    return cfg


def feed(loader: ConfigDict, found: Survey, plan: Schedule) -> None:
    """The folder's images, at the size of the network."""
    loader.update(plan.machine.loader(workers=8), batch_size=plan.batch)
    loader.dataset.data_root = str(found.folder.resolve())
    if found.white is not None:
        loader.dataset.white = found.white
    if found.channels != COLOURS:
        loader.dataset.channels = found.channels
    resize(loader.dataset.pipeline, plan.size)


def take_bands(cfg: Config, train: str, validation: str) -> None:
    """Pipelines that take no channel for a colour."""
    pipelines = shipped(BANDS)
    cfg.train_dataloader.dataset.pipeline = pipelines[train]
    cfg.val_dataloader.dataset.pipeline = pipelines[validation]


def finish_epochs(cfg: Config, found: Survey, plan: Schedule, rate: float) -> Config:
    """`finish` of a training by epochs, with its data."""
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        feed(loader, found, plan)
    if cfg.param_scheduler.warmup:
        cfg.param_scheduler.update(warmup=plan.warmup, start_lr=rate / 100, min_lr=rate / 100)
    cfg.train_cfg.max_epochs = plan.epochs
    return finish(cfg, plan, rate, plan.every)


def finish(cfg: Config, plan: Schedule, rate: float, every: int) -> Config:
    """What all trainings have: learning rate, validations and checkpoints, and a test that is the
    validation; with no other keys than those that a runner reads."""
    cfg.optim_wrapper.optimizer.lr = rate
    cfg.auto_scale_lr.base_batch_size = plan.images
    cfg.train_cfg.val_interval = cfg.default_hooks.checkpoint.interval = every
    cfg.default_hooks.logger.interval = min(50, max(1, plan.steps // 4))
    for name in ('dataloader', 'evaluator', 'cfg'):
        cfg[f'test_{name}'] = cfg[f'val_{name}']
    return ordered(cfg)


def ordered(cfg: Config) -> Config:
    """The config with the keys that a runner reads, and no others."""
    return Config({key: cfg[key] for key in KEYS if key in cfg})


def resize(pipeline: Sequence[ConfigDict], size: Size) -> None:
    """Sets the sizes of the steps. Masks cover two fifths of the patches, in blocks of at least a
    twelfth of them."""
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
