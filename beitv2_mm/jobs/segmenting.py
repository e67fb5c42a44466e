"""`python -m beitv2_mm segment-train`: a segmentor from trained weights, images and masks."""

import logging
from pathlib import Path

from mmengine.config import Config, ConfigDict

from beitv2_mm import config_root
from beitv2_mm.apis import SegmentationInferencer
from beitv2_mm.checkpoint.atomic import write_atomic
from beitv2_mm.jobs.choices import Machine, Schedule, Size, learning_rate, schedule, this_machine
from beitv2_mm.jobs.mask_survey import MaskSurvey, survey_masks
from beitv2_mm.jobs.options import LISTS, SegmentOptions, is_new, record_command
from beitv2_mm.jobs.pictures import (
    ONE_TRAINING,
    RULES,
    count_classes,
    curves_pictures,
    describe_machine,
    guess_everywhere,
    records,
)
from beitv2_mm.jobs.quickstart_settings import SEGMENT_METRICS
from beitv2_mm.jobs.recipe_parts import ordered
from beitv2_mm.jobs.stages import Results, Stages, artifact
from beitv2_mm.jobs.survey import FolderError
from beitv2_mm.jobs.training import training_stage
from beitv2_mm.jobs.weights import Weights, find_weights
from beitv2_mm.jobs.writing import write_config
from beitv2_mm.layers.arch import get_arch
from beitv2_mm.registry import DATASETS
from beitv2_mm.visualization.canvas import beside, to_png
from beitv2_mm.visualization.curves import Panel, read_scalars, validation_axis
from beitv2_mm.visualization.outcomes import SegmentorReport
from beitv2_mm.visualization.report import Picture
from beitv2_mm.visualization.report_page import publish

SEGMENT = 'configs/segmentation/beitv2_base_1xb8_20k_folder.py'


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
        size = crop_size(found, weights, machine, options.image_size)
        plan = schedule(
            'segment',
            len(found.train),
            weights.arch,
            size,
            machine,
            options.epochs,
            options.batch_size,
        )
        logger.info(f'segment: {plan.describe(size)}')
        cfg = segment(root, found, weights, size, plan, machine, options.out)
        record_command(options)
        write_lists(found, options.out)
        write_config(cfg, path, 'segment', options.folder, size, plan, machine)
    stages = Stages(options.out, logger)
    gpus = options.gpus or 1
    stages.run(training_stage('segment', path, SEGMENT_METRICS, logger, gpus=gpus))
    report = segmenting_report(stages.results, path, options.folder)
    return publish(report, options.out, logger)


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
    rate = learning_rate('segment', weights.arch, plan)
    cfg.param_scheduler.update(warmup=max(1, plan.total // 20), start_lr=rate / 100)
    cfg.train_cfg.update(max_iters=plan.total, val_interval=every)
    cfg.optim_wrapper.optimizer.lr = rate
    if dims > 768:  # as in the recipes of large
        cfg.optim_wrapper.paramwise_cfg.layer_decay_rate = 0.9
    cfg.default_hooks.checkpoint.update(interval=every)
    cfg.default_hooks.logger.interval = min(50, max(1, plan.steps // 4))
    cfg.auto_scale_lr.base_batch_size = plan.images
    for name in ('dataloader', 'evaluator', 'cfg'):
        cfg[f'test_{name}'] = cfg[f'val_{name}']
    return ordered(cfg)


def _resize(pipeline: list[ConfigDict], size: Size) -> None:
    for step in pipeline:
        if 'scale' in step:
            step.scale = (4 * size.pixels, size.pixels)
        if 'crop_size' in step:
            step.crop_size = (size.pixels, size.pixels)


def segmenting_report(results: Results, config: Path, folder: Path) -> SegmentorReport:
    """Figures and pictures of a segmentor."""
    result, cfg = results['segment'], Config.fromfile(config)
    scalars, out = read_scalars(result.folder), config.parent
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    panels = [
        Panel('Loss on training images', {'loss': scalars['loss']}),
        Panel(
            'Mean IoU on images held out',
            {'mIoU': scalars['val/mIoU']},
            validation_axis(scalars),
            percent=True,
        ),
    ]
    return SegmentorReport(
        title=f'Segmentor of {folder.resolve().name}',
        summary='UPerNet on a pretrained transformer.',
        miou=result.metrics['mIoU'],
        macc=result.metrics['mAcc'],
        aacc=result.metrics['aAcc'],
        guess=guess_everywhere(count_classes(cfg.val_dataloader.dataset)),
        num_images=len(infos),
        num_classes=len(dataset.metainfo['classes']),
        stages=records(results),
        machine=describe_machine('auto'),
        settings=[('segment', str(config), {})],
        limits=[RULES, ONE_TRAINING, 'The images held out come from the same folder.'],
        commands=[
            ('Segment other images', f'python -m beitv2_mm predict IMAGES --from {out}'),
            (
                'Segment an image in Python',
                'from beitv2_mm.apis import SegmentationInferencer\n'
                f"SegmentationInferencer('{config}', '{artifact(result.folder)}')('x.jpg')",
            ),
        ],
        pictures=[
            *curves_pictures(panels),
            _overlays(cfg, artifact(result.folder), [info['img_path'] for info in infos[:4]]),
        ],
    )


def _overlays(cfg: Config, checkpoint: Path, files: list[str]) -> Picture:
    inferencer = SegmentationInferencer(cfg, str(checkpoint))
    drawn = [inferencer.draw(result) for result in inferencer.stream(files)]
    return Picture(
        'segmentation',
        'What it finds',
        'Images held out, under the colours of the classes that were found.',
        to_png(beside(drawn, columns=2)),
    )
