"""`python -m beitv2_mm segment-train`: a segmentor from trained weights, images and masks."""

import logging
from pathlib import Path

from mmengine.config import Config, ConfigDict

from beitv2_mm.apis import SegmentationInferencer
from beitv2_mm.checkpoint.atomic import write_atomic
from beitv2_mm.jobs import pictures
from beitv2_mm.jobs.choices import Machine, Schedule, Size, schedule, this_machine
from beitv2_mm.jobs.mask_survey import MaskSurvey, survey_masks
from beitv2_mm.jobs.options import LISTS, SegmentOptions, is_new, record_command
from beitv2_mm.jobs.recipe_parts import finish, shipped
from beitv2_mm.jobs.stages import Results, Stages, artifact
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
    """Trains a segmentor on images and masks; what is done already is skipped. Returns the page.

    Raises:
        FolderError: the folder, weights or out cannot be used.
        StageError: the training failed.
    """
    path = options.out / 'segment.py'
    if is_new(options, [path]):
        _write_config(options, path, logger)
    stages = Stages(options.out, logger)
    stages.run(training_stage('segment', 'segment', path, logger, gpus=options.gpus or 1))
    report = segmenting_report(stages.results, path, options.folder)
    return publish(report, options.out, logger)


def _write_config(options: SegmentOptions, path: Path, logger: logging.Logger) -> None:
    machine, found = this_machine(options.gpus), survey_masks(options.folder)
    logger.info(found.describe())
    weights = find_weights(options.source, options.image_size)
    size = crop_size(found, weights, machine, options.image_size)
    user = options.epochs, options.batch_size
    plan = schedule('segment', len(found.train), weights.arch, size, machine, *user)
    logger.info(f'segment: {plan.describe()}')
    cfg = segment(found, weights, plan, options.out)
    record_command(options)
    for subset, name in LISTS.items():
        write_atomic(options.out / name, ('\n'.join(getattr(found, subset)) + '\n').encode())
    write_config(cfg, path, 'segment', options.folder, plan)


def crop_size(found: MaskSurvey, weights: Weights, on: Machine, chosen: int | None) -> Size:
    """The crops of the training: on a GPU up to 512 px, as far as the images are so large; without
    a GPU, or where the user has chosen a size, that of ``weights``."""
    if chosen or not on.gpu_memory:
        return weights.size
    pixels = min(512, max(found.short_side, weights.img_size))
    return Size(round(pixels / weights.patch_size) * weights.patch_size, weights.patch_size)


def segment(found: MaskSurvey, weights: Weights, plan: Schedule, out: Path) -> Config:
    """UPerNet on the transformer of ``weights``."""
    cfg = shipped(SEGMENT)
    arch, pixels = get_arch(weights.arch), plan.size.pixels
    dims, crop = arch.embed_dims, (pixels, pixels)
    blocks = tuple(round(arch.num_layers * part / 12) - 1 for part in (4, 6, 8, 12))
    init = weights.backbone() | dict(img_size=pixels)
    init.setdefault('layer_scale_init_value', None)
    cfg.model.backbone.update(init, out_indices=blocks, drop_path_rate=0.0 if plan.short else 0.15)
    cfg.model.data_preprocessor.size = crop
    heads = dict(num_classes=len(found.classes), patch_size=plan.size.patch)
    cfg.model.decode_head.update(heads, in_channels=[dims] * 4, channels=dims)
    cfg.model.auxiliary_head.update(heads, in_channels=dims, channels=min(dims, 256))
    cfg.model.test_cfg = dict(
        mode='slide', crop_size=crop, stride=(2 * pixels // 3,) * 2, windows_per_batch=8
    )
    for subset, name in LISTS.items():
        loader = cfg[f'{subset}_dataloader']
        loader.update(plan.machine.loader(workers=4))
        loader.dataset.update(
            classes=found.classes,
            data_root=str(found.folder.resolve()),
            data_prefix=dict(img_path='images', seg_map_path='masks'),
            ann_file=str((out / name).resolve()),
        )
        _resize(loader.dataset.pipeline, plan.size)
    cfg.train_dataloader.batch_size = plan.batch
    cfg.param_scheduler.update(warmup=max(1, plan.total // 20), start_lr=plan.learning_rate / 100)
    cfg.train_cfg.max_iters = plan.total
    if dims > 768:  # as in the recipes of large
        cfg.optim_wrapper.paramwise_cfg.layer_decay_rate = 0.9
    return finish(cfg, plan, plan.learning_rate, every=plan.every * plan.steps)


def _resize(pipeline: list[ConfigDict], size: Size) -> None:
    for step in pipeline:
        if 'scale' in step:
            step.scale = (4 * size.pixels, size.pixels)
        if 'crop_size' in step:
            step.crop_size = (size.pixels, size.pixels)


def segmenting_report(results: Results, config: Path, folder: Path) -> SegmentorReport:
    """Figures and pictures of a segmentor."""
    result, dataset = (
        results['segment'],
        DATASETS.build(Config.fromfile(config).val_dataloader.dataset),
    )
    checkpoint, scalars = artifact(result.folder), read_scalars(result.folder)
    files = [dataset.get_data_info(index)['img_path'] for index in range(min(4, len(dataset)))]
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
        guess=pictures.guess_everywhere(pictures.count_classes(dataset)),
        num_images=len(dataset),
        num_classes=len(dataset.metainfo['classes']),
        **pictures.what_ran(results),
        settings=[('segment', str(config), {})],
        limits=[
            pictures.RULES,
            pictures.ONE_TRAINING,
            'The images held out come from the same folder.',
        ],
        commands=pictures.usage('Segment', 'SegmentationInferencer', config, checkpoint),
        pictures=[*pictures.curves_pictures(panels), _overlays(config, checkpoint, files)],
    )


def _overlays(config: Path, checkpoint: Path, files: list[str]) -> Picture:
    inferencer = SegmentationInferencer(config, str(checkpoint))
    drawn = [inferencer.draw(result) for result in inferencer.stream(files)]
    return Picture(
        'segmentation',
        'What the segmentor finds',
        'Images held out, under the colours of the classes that were found.',
        to_png(beside(drawn, columns=2)),
    )
