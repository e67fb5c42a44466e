"""`python -m beitv2_mm detect-train`: a detector from trained weights, images and a COCO json."""

import logging
from pathlib import Path

from mmengine.config import Config

from beitv2_mm.apis import DetectionInferencer
from beitv2_mm.detection import CocoFolder  # raises here, with advice, where mmdet is missing
from beitv2_mm.jobs import pictures
from beitv2_mm.jobs.box_survey import BoxSurvey, survey_boxes
from beitv2_mm.jobs.choices import Machine, Schedule, Size, exact_size, schedule, this_machine
from beitv2_mm.jobs.options import JSONS, DetectOptions, is_new, record_command
from beitv2_mm.jobs.recipe_parts import finish, shipped
from beitv2_mm.jobs.stages import Results, Stages, artifact
from beitv2_mm.jobs.training import training_stage
from beitv2_mm.jobs.weights import Weights, find_weights
from beitv2_mm.jobs.writing import write_config
from beitv2_mm.layers.arch import get_arch
from beitv2_mm.registry import DATASETS, type_name
from beitv2_mm.visualization.canvas import beside, spread, to_png
from beitv2_mm.visualization.curves import Panel, read_scalars, validation_axis
from beitv2_mm.visualization.instances import Instances, draw_instances
from beitv2_mm.visualization.outcomes import DetectorReport
from beitv2_mm.visualization.report import Picture
from beitv2_mm.visualization.report_page import publish

LARGE = 'configs/detection/beitv2_base_mask_rcnn_1xb4_10k_folder.py'
SMALL = 'configs/detection/beitv2_tiny_mask_rcnn_1xb16_400i_composites.py'
SMALL_IMAGES = 256  # pixels below which the heads are those of `SMALL`


def detect_train(options: DetectOptions, logger: logging.Logger) -> Path:
    """Trains a detector on images and boxes; what is done already is skipped. Returns the page.

    Raises:
        FolderError: the folder, weights or out cannot be used.
        CocoError: the json cannot be used.
        StageError: the training failed.
    """
    path = options.out / 'detect.py'
    if is_new(options, [path]):
        _write_config(options, path, logger)
    stages = Stages(options.out, logger)
    masks = 'mask_head' in Config.fromfile(path).model.roi_head
    task = 'detect with masks' if masks else 'detect'
    stages.run(training_stage('detect', task, path, logger, gpus=options.gpus or 1))
    return publish(detecting_report(stages.results, path, options.folder), options.out, logger)


def _write_config(options: DetectOptions, path: Path, logger: logging.Logger) -> None:
    machine, found = this_machine(options.gpus), survey_boxes(options.folder)
    logger.info(found.describe())
    weights = find_weights(options.source)
    size = crop_size(found, weights, machine, options.image_size)
    user = options.epochs, options.batch_size
    plan = schedule('detect', len(found.train['images']), weights.arch, size, machine, *user)
    logger.info(f'detect: {plan.describe()}')
    cfg = detect(found, weights, plan, options.out)
    record_command(options)
    found.write(options.out)
    write_config(cfg, path, 'detect', options.folder, plan)


def crop_size(found: BoxSurvey, weights: Weights, on: Machine, chosen: int | None) -> Size:
    """The images of the training: as large as those of the folder, up to 512 px on a GPU and 128 px
    on a CPU, but no smaller than those of ``weights``; or what the user has chosen."""
    if chosen:
        return exact_size(chosen, weights.patch_size)
    pixels = max(min(found.short_side, 512 if on.gpu_memory else 128), weights.img_size)
    return Size(round(pixels / weights.patch_size) * weights.patch_size, weights.patch_size)


def detect(found: BoxSurvey, weights: Weights, plan: Schedule, out: Path) -> Config:
    """Mask R-CNN on the transformer of ``weights``; where objects have no masks, Faster R-CNN."""
    small = plan.size.pixels < SMALL_IMAGES
    cfg = shipped(SMALL if small else LARGE)
    cfg.param_scheduler = shipped(SMALL).param_scheduler
    cfg.param_scheduler.update(warmup=max(1, plan.total // 20), start_lr=plan.learning_rate / 100)
    _network(cfg, weights, plan.size, small)
    cfg.model.backbone.drop_path_rate = 0.0 if plan.short else 0.1
    heads = cfg.model.roi_head
    heads.bbox_head.num_classes = heads.mask_head.num_classes = len(found.classes)
    if not found.masks:
        del heads['mask_head'], heads['mask_roi_extractor']
        cfg.val_evaluator.metric = ['bbox']
    pipelines = shipped(LARGE)
    for subset, name, steps in zip(
        ('train', 'val'), JSONS, (pipelines.train_pipeline, pipelines.test_pipeline), strict=True
    ):
        _prepare(steps, plan, found.masks)
        loader = cfg[f'{subset}_dataloader']
        loader.update(plan.machine.loader(workers=4))
        loader.dataset.update(
            data_root=str(found.folder.resolve()),
            data_prefix=dict(img=''),
            ann_file=str((out / name).resolve()),
            pipeline=steps,
        )
    cfg.train_dataloader.dataset.filter_cfg = dict(filter_empty_gt=True)
    cfg.train_dataloader.batch_size = plan.batch
    cfg.val_evaluator.ann_file = str((out / JSONS[1]).resolve())
    cfg.train_cfg.max_iters = plan.total
    if get_arch(weights.arch).embed_dims > 768:  # as in the recipes of large
        cfg.optim_wrapper.paramwise_cfg.layer_decay_rate = 0.8
    return finish(cfg, plan, plan.learning_rate, every=plan.every * plan.steps)


def _network(cfg: Config, weights: Weights, size: Size, small: bool) -> None:
    """Sets the sizes of the transformer, and of what depends on them."""
    arch, side = get_arch(weights.arch), weights.img_size // weights.patch_size
    backbone = cfg.model.backbone
    backbone.update(weights.backbone(), window_size=None, global_blocks=())
    backbone.setdefault('layer_scale_init_value', None)
    if size.grid > side and weights.position != 'absolute':  # windows take the tables as they are
        quarters = tuple(round(arch.num_layers * part / 4) - 1 for part in (1, 2, 3, 4))
        backbone.update(window_size=side, global_blocks=quarters)
    cfg.model.neck.update(in_channels=arch.embed_dims, patch_size=weights.patch_size)
    if small:  # the largest anchors are as large as the image, boxes over half of it are large
        cfg.model.rpn_head.anchor_generator.scales = [max(2, size.pixels // 16)]
        for kind in ('bbox', 'mask'):
            cfg.model.roi_head[f'{kind}_roi_extractor'].finest_scale = size.pixels * 7 // 16


def _prepare(steps: list, plan: Schedule, masks: bool) -> None:
    """Sets the sizes in a pipeline, and whether it reads masks."""
    size = (plan.size.pixels, plan.size.pixels)
    for step in steps:
        for key in ('scale', 'crop_size', 'size'):
            if key in step:
                step[key] = size
        if plan.short and 'ratio_range' in step:  # the recipe's 0.1 to 2 takes a long schedule
            step.ratio_range = (0.8, 1.25)
        if type_name(step) == 'LoadAnnotations':
            step.with_mask = masks


def detecting_report(results: Results, config: Path, folder: Path) -> DetectorReport:
    """Figures and pictures of a detector."""
    result = results['detect']
    dataset = DATASETS.build(Config.fromfile(config).val_dataloader.dataset)
    checkpoint, scalars = artifact(result.folder), read_scalars(result.folder)
    precision = {
        name: scalars[f'val/coco/{key}']
        for name, key in (('boxes', 'bbox_mAP'), ('masks', 'segm_mAP'))
        if f'val/coco/{key}' in scalars
    }
    axis = validation_axis(scalars)
    panels = [
        Panel('Loss on training images', {'loss': scalars['loss']}),
        Panel('AP on images held out', precision, axis),
    ]
    masks = result.metrics.get('coco/segm_mAP')
    return DetectorReport(
        title=f'Detector of {folder.resolve().name}',
        summary='A region-based detector on a pretrained transformer.',
        box_ap=100 * result.metrics['coco/bbox_mAP'],
        box_ap50=100 * result.metrics['coco/bbox_mAP_50'],
        mask_ap=None if masks is None else 100 * masks,
        num_images=len(dataset),
        num_classes=len(dataset.metainfo['classes']),
        **pictures.what_ran(results),
        settings=[('detect', str(config), {})],
        limits=[
            pictures.RULES,
            pictures.ONE_TRAINING,
            'The images held out come from the same folder.',
        ],
        commands=pictures.usage('Search', 'DetectionInferencer', config, checkpoint),
        pictures=[*pictures.curves_pictures(panels), _found(config, checkpoint, dataset)],
    )


def _found(config: Path, checkpoint: Path, dataset: CocoFolder) -> Picture:
    """Annotated objects and detected ones, of a few images."""
    inferencer, rows = DetectionInferencer(config, str(checkpoint)), []
    for index in spread(len(dataset), 4):
        sample = dataset[int(index)]['data_samples']
        (result,) = inferencer(sample.img_path)
        annotated = Instances.of(sample.gt_instances)
        names = inferencer.classes, inferencer.palette
        truth = draw_instances(result.image, annotated, *names)
        rows.append(beside([truth, inferencer.draw(result)]))
    return Picture(
        'detection',
        'What the detector finds',
        f'Images held out: annotated objects on the left, on the right those found with a score of '
        f'at least {inferencer.threshold:.0%}.',
        to_png(beside(rows, columns=1)),
    )
