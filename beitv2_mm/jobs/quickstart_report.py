"""From finished stages to a report: figures, curves, pictures of codes and masks."""

from pathlib import Path

import numpy as np
from PIL import Image

from beitv2_mm import config_root
from beitv2_mm.apis import SegmentationInferencer
from beitv2_mm.datasets.prepare.cifar10 import CLASSES
from beitv2_mm.jobs import quickstart_settings as s
from beitv2_mm.jobs.pictures import (
    count_classes,
    curves_pictures,
    describe_machine,
    guess_everywhere,
    pictures_of_codes,
    pretraining_panels,
    records,
)
from beitv2_mm.jobs.stages import Results, artifact
from beitv2_mm.jobs.training import config
from beitv2_mm.registry import DATASETS
from beitv2_mm.visualization.accuracy import Accuracy, accuracy
from beitv2_mm.visualization.canvas import to_png
from beitv2_mm.visualization.curves import Panel, read_scalars
from beitv2_mm.visualization.outcomes import ComparisonReport
from beitv2_mm.visualization.report import Picture, SegmentationScore
from beitv2_mm.visualization.segmentation import compare_labels


def build_report(results: Results, scale: s.Scale, options: s.Options) -> ComparisonReport:
    """Everything the report shows, from all stages' results."""
    tokenizer, pretrain = results['tokenizer'].metrics, results['pretrain'].metrics
    paths = {name: str(artifact(results[name].folder)) for name in ('tokenizer', 'pretrain')}
    paths['data'] = str(options.data)
    return ComparisonReport(
        title=scale.title,
        summary=s.SUMMARY,
        smoke=options.fast,
        cosine=tokenizer['cosine'],
        cosine_constant=tokenizer.get('cosine_constant'),
        codebook_usage=tokenizer['codebook_usage'],
        mim_accuracy=pretrain['accuracy_main'],
        mim_accuracy_aggregation=pretrain['accuracy_aggregation'],
        accuracy_constant=pretrain.get('accuracy_constant'),
        num_held_out=_count_images(options, s.PRETRAIN_CONFIG, scale.pretrain, 'train'),
        num_classes=len(CLASSES),
        num_test_images=_count_images(options, s.FINETUNE_CONFIG, scale.finetune, 'test'),
        scratch=_top1(results, 'scratch', options.seeds),
        pretrained=_top1(results, 'pretrained', options.seeds),
        stages=records(results),
        machine=describe_machine(options.device),
        settings=[
            ('tokenizer', s.TOKENIZER_CONFIG, dict(scale.tokenizer)),
            ('pretraining', s.PRETRAIN_CONFIG, dict(scale.pretrain)),
            *(
                (s.LABELS[way], s.FINETUNE_CONFIG, {**scale.finetune, **changes})
                for way, changes in s.WAYS.items()
            ),
        ],
        limits=s.LIMITS,
        commands=[(purpose, line.format_map(paths)) for purpose, line in s.COMMANDS],
        pictures=[
            *_curves(results, options.seeds),
            *_pictures(results, scale, options),
            *_segmentations(results, scale, options),
        ],
        segmentation=_scores(results, scale, options),
    )


def _count_images(options: s.Options, path: str, changes: s.Values, subset: str) -> int:
    """How many images a training of this config was validated on."""
    changes = {**changes, s.VAL_IMAGES: str(options.data / subset)}
    return len(DATASETS.build(config(config_root() / path, changes).val_dataloader.dataset))


def _scores(results: Results, scale: s.Scale, options: s.Options) -> list[SegmentationScore]:
    """The baseline and each way; empty where segmentation was left out."""
    if 'composites' not in results:
        return []
    pasted = str(results['composites'].folder / s.COMPOSITES)
    cfg = config(config_root() / s.SEGMENT_CONFIG, {**scale.segment, s.VAL_IMAGES: pasted})
    return [
        *(
            SegmentationScore(label, *(results[name].metrics[key] for key in s.SEGMENT_METRICS))
            for label, name in _segmentation_stages()
        ),
        guess_everywhere(count_classes(cfg.val_dataloader.dataset)),
    ]


def _segmentation_stages() -> list[tuple[str, str]]:
    """Labels and stages, the worse first, as elsewhere in the report."""
    ways = reversed(s.WAYS)
    return [(s.LABELS[way], s.stage_name(f'segment_{way}', 0)) for way in ways]


def _top1(results: Results, way: str, seeds: int) -> Accuracy:
    names = [s.stage_name(way, seed) for seed in range(seeds)]
    return accuracy([results[name].metrics['accuracy/top1'] for name in names])


def _curves(results: Results, seeds: int) -> list[Picture]:
    losses = {label: _mean_loss(results, way, seeds) for way, label in s.LABELS.items()}
    panels = [
        *pretraining_panels(results['tokenizer'].folder, results['pretrain'].folder),
        Panel('Fine-tuning: loss on training images', losses),
    ]
    return curves_pictures(
        panels,
        'Measured on the training images while they were trained on; fine-tuning shows the '
        'mean of the seeds.',
    )


def _mean_loss(results: Results, way: str, seeds: int) -> tuple[list[int], list[float]]:
    names = [s.stage_name(way, seed) for seed in range(seeds)]
    curves = [read_scalars(results[name].folder)['loss'] for name in names]
    return curves[0][0], np.mean([values for _, values in curves], axis=0).tolist()


def _pictures(results: Results, scale: s.Scale, options: s.Options) -> list[Picture]:
    images = read_test_images(options.data / 'test', scale.num_images)
    tokenizer = config(config_root() / s.TOKENIZER_CONFIG, scale.tokenizer)
    pretrain = config(config_root() / s.PRETRAIN_CONFIG, scale.pretrain)
    checkpoints = [artifact(results[stage].folder) for stage in ('tokenizer', 'pretrain')]
    return pictures_of_codes(images, (tokenizer, pretrain), checkpoints, 'test images')


def _segmentations(results: Results, scale: s.Scale, options: s.Options) -> list[Picture]:
    if 'composites' not in results:
        return []
    files = sorted((results['composites'].folder / s.COMPOSITES / 'images/test').glob('*.png'))[:9]
    masks = [Image.open(str(file).replace('/images/', '/masks/')) for file in files]
    rows = {'mask': np.stack([np.asarray(mask) for mask in masks])}
    cfg = config(config_root() / s.SEGMENT_CONFIG, scale.segment)
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


def read_test_images(folder: Path, count: int) -> np.ndarray:
    """The first images of every class in turn, uint8 (count, H, W, 3)."""
    paths = [sorted((folder / name).glob('*.png'))[: -(-count // len(CLASSES))] for name in CLASSES]
    mixed = [path for group in zip(*paths, strict=True) for path in group]
    return np.stack([np.asarray(Image.open(path).convert('RGB')) for path in mixed[:count]])
