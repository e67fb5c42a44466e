"""From finished stages to a report: figures, curves, pictures of codes and masks."""

import numpy as np
from mmengine.config import Config
from PIL import Image

from beitv2_mm.apis import SegmentationInferencer
from beitv2_mm.datasets.prepare.cifar10 import CLASSES
from beitv2_mm.jobs import pictures
from beitv2_mm.jobs import quickstart_settings as s
from beitv2_mm.jobs.stages import Result, Results, artifact
from beitv2_mm.jobs.training import METRICS
from beitv2_mm.registry import DATASETS
from beitv2_mm.visualization.accuracy import Accuracy, accuracy
from beitv2_mm.visualization.canvas import to_png
from beitv2_mm.visualization.curves import Panel, read_scalars
from beitv2_mm.visualization.outcomes import ComparisonReport
from beitv2_mm.visualization.report import Picture, SegmentationScore
from beitv2_mm.visualization.segmentation import compare_labels


def build_report(results: Results, scale: s.Scale, options: s.Options) -> ComparisonReport:
    """Everything that the report shows, from the results of all stages."""
    places = {name: str(artifact(results[name].folder)) for name in ('tokenizer', 'pretrain')}
    places['data'] = str(options.data)
    return ComparisonReport(
        title=scale.title,
        summary=s.SUMMARY,
        smoke=options.fast,
        **pictures.pretraining_figures(results),
        num_held_out=_count_images(scale.config('pretrain', options.data / 'train')),
        num_classes=len(CLASSES),
        num_test_images=_count_images(scale.config('finetune', options.data / 'test')),
        scratch=_top1(results, 'scratch', options.seeds),
        pretrained=_top1(results, 'pretrained', options.seeds),
        **pictures.what_ran(results, options.device),
        settings=[
            (s.LABELS[name], s.CONFIGS[task], {**scale.changes[task], **s.WAYS.get(name, {})})
            for name, task in {
                'tokenizer': 'tokenizer',
                'pretrain': 'pretrain',
                'pretrained': 'finetune',
                'scratch': 'finetune',
            }.items()
        ],
        limits=s.LIMITS,
        commands=[(purpose, line.format_map(places)) for purpose, line in s.COMMANDS],
        pictures=[
            *_curves(results, options.seeds),
            *_pictures(results, scale, options),
            *_segmentations(results, scale),
        ],
        segmentation=_scores(results, scale),
    )


def _count_images(cfg: Config) -> int:
    """How many images a config is validated on."""
    return len(DATASETS.build(cfg.val_dataloader.dataset))


def _scores(results: Results, scale: s.Scale) -> list[SegmentationScore]:
    """The scores of each way and of the baseline; empty where segmentation was left out."""
    if 'composites' not in results:
        return []
    cfg = scale.config('segment', results['composites'].folder / s.COMPOSITES)
    counts = pictures.count_classes(DATASETS.build(cfg.val_dataloader.dataset))
    return [
        *(
            SegmentationScore(label, *(results[name].metrics[key] for key in METRICS['segment']))
            for label, name in _segmentation_stages()
        ),
        pictures.guess_everywhere(counts),
    ]


def _segmentation_stages() -> list[tuple[str, str]]:
    """Labels and stages, the worse first, as elsewhere in the report."""
    ways = reversed(s.WAYS)
    return [(s.LABELS[way], s.stage_name(f'segment_{way}', 0)) for way in ways]


def _seeds(results: Results, way: str, seeds: int) -> list[Result]:
    """The classifiers of one way."""
    return [results[s.stage_name(way, seed)] for seed in range(seeds)]


def _top1(results: Results, way: str, seeds: int) -> Accuracy:
    return accuracy([r.metrics['accuracy/top1'] for r in _seeds(results, way, seeds)])


def _curves(results: Results, seeds: int) -> list[Picture]:
    losses = {}
    for way in s.WAYS:
        curves = [read_scalars(result.folder)['loss'] for result in _seeds(results, way, seeds)]
        mean = np.mean([values for _, values in curves], axis=0).tolist()
        losses[s.LABELS[way]] = curves[0][0], mean
    return pictures.curves_pictures(
        [
            *pictures.pretraining_panels(results),
            Panel('Fine-tuning: loss on training images', losses),
        ],
        'Measured on the training images while they were trained on; fine-tuning shows the '
        'mean of the seeds.',
    )


def _pictures(results: Results, scale: s.Scale, options: s.Options) -> list[Picture]:
    """Pictures of the codes of test images."""
    configs = [scale.config(task) for task in ('tokenizer', 'pretrain')]
    images = configs[0].val_dataloader.dataset
    images.update(data_root=str(options.data / 'test'), subset='train', val_per_class=0)
    return pictures.pictures_of_codes(configs, results, 'test images', scale.num_images)


def _segmentations(results: Results, scale: s.Scale) -> list[Picture]:
    if 'composites' not in results:
        return []
    files = sorted((results['composites'].folder / s.COMPOSITES / 'images/test').glob('*.png'))[:9]
    masks = [Image.open(str(file).replace('/images/', '/masks/')) for file in files]
    rows = {'mask': np.stack([np.asarray(mask) for mask in masks])}
    cfg = scale.config('segment')
    for label, stage in _segmentation_stages():
        inferencer = SegmentationInferencer(cfg, artifact(results[stage].folder), device='cpu')
        found = inferencer(files)
        rows[label] = np.stack([result.labels for result in found])
    images = np.stack([result.image for result in found])
    picture = compare_labels(images, rows, inferencer.palette, inferencer.classes)
    return [
        Picture(
            'segmentation',
            'Segmentation of composites',
            'Composites, not photographs of scenes: real Fashion-MNIST items pasted on real '
            'CIFAR-10 pictures. The first of the test set, their exact masks, and what UPerNet '
            'finds on the transformer from scratch and on the pretrained one.',
            to_png(picture),
        )
    ]
