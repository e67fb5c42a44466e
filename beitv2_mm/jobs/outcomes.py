"""From finished trainings of a folder to a report."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from mmengine.config import Config
from PIL import Image

from beitv2_mm.apis import SegmentationInferencer
from beitv2_mm.apis.tokenize import centre_crop
from beitv2_mm.datasets import UnreadableImageError, read_image
from beitv2_mm.datasets.pixel_rules import COLOURS
from beitv2_mm.jobs.options import FinetuneOptions
from beitv2_mm.jobs.pictures import (
    code_pictures,
    count_classes,
    curves_pictures,
    describe_machine,
    guess_everywhere,
    pretraining_panels,
)
from beitv2_mm.jobs.stages import Result, artifact
from beitv2_mm.jobs.survey import Survey
from beitv2_mm.registry import DATASETS
from beitv2_mm.visualization.accuracy import accuracy
from beitv2_mm.visualization.canvas import beside, to_png
from beitv2_mm.visualization.curves import Panel, Scalars, read_scalars, validation_axis
from beitv2_mm.visualization.outcomes import (
    ClassifierReport,
    PretrainingReport,
    SegmentorReport,
)
from beitv2_mm.visualization.report import Picture, StageRecord

Results = Mapping[str, Result]
NUM_IMAGES = 500  # of those held out, in the pictures
FIRST_SEED = 'Curves are of the first seed.'
CHOSEN = (
    'Sizes, batch and schedule follow rules of thumb, not trials on these images.',
    'One training of each kind: another seed gives other figures.',
)


def pretraining_report(
    results: Results, configs: Mapping[str, Path], folder: Path
) -> PretrainingReport:
    """Figures and pictures of a pretraining, from its stages' results."""
    tokenizer, mim = results['tokenizer'], results['pretrain']
    loaded = {name: Config.fromfile(path) for name, path in configs.items()}
    images = read_held_out(loaded['tokenizer'])
    out = mim.folder.parent
    return PretrainingReport(
        title=f'BEiT v2 pretrained on {folder.resolve().name}',
        summary='A visual tokenizer learned from a teacher network, and a transformer pretrained '
        "to predict the tokenizer's codes of hidden patches. No labels were used.",
        cosine=tokenizer.metrics['cosine'],
        cosine_constant=tokenizer.metrics.get('cosine_constant'),
        codebook_usage=tokenizer.metrics['codebook_usage'],
        mim_accuracy=mim.metrics['accuracy_main'],
        mim_accuracy_aggregation=mim.metrics['accuracy_aggregation'],
        accuracy_constant=mim.metrics.get('accuracy_constant'),
        num_held_out=len(DATASETS.build(loaded['pretrain'].val_dataloader.dataset)),
        stages=_records(results),
        machine=describe_machine('auto'),
        settings=[(name, str(path), {}) for name, path in configs.items()],
        limits=[
            *CHOSEN,
            'Accuracy on codes tells how well training goes, not how useful the features are: '
            'fine-tune, or probe, to learn that.',
        ],
        commands=[
            (
                'Train a classifier on folders of images, one for each class',
                f'python -m beitv2_mm finetune CLASSES --from {out} --out {out}_classifier',
            ),
            (
                'Use the features in Python',
                'from beitv2_mm.apis import FeatureInferencer\n'
                f"FeatureInferencer('{configs['pretrain']}', '{artifact(mim.folder)}')('x.jpg')",
            ),
        ],
        pictures=[
            *curves_pictures(
                pretraining_panels(tokenizer.folder, mim.folder),
                'Measured on the training images while they were trained on.',
            ),
            *code_pictures(
                images,
                (loaded['tokenizer'], loaded['pretrain']),
                (artifact(tokenizer.folder), artifact(mim.folder)),
                'images held out',
            ),
        ],
    )


def finetuning_report(
    results: Results, config: Path, found: Survey, options: FinetuneOptions
) -> ClassifierReport:
    """Figures of a fine-tuned classifier, or of a probe; beside it those from scratch."""
    cfg = Config.fromfile(config)
    held_out = (cfg.get('val_dataloader') or cfg.test_dataloader).dataset.val_per_class
    ways = {
        way: accuracy([r.metrics['accuracy/top1'] for n, r in results.items() if _way(n) == way])
        for way in dict.fromkeys(map(_way, results))
    }
    trained = {name: result for name, result in results.items() if name != 'probe'}
    label = dict(full='fine-tuned', linear='linear, frozen features')[options.head]
    names = {'finetune': label, 'scratch': 'from scratch', 'probe': 'k-NN of frozen features'}
    firsts = {names[n]: read_scalars(r.folder) for n, r in trained.items() if n in names}
    panels = _classifier_panels(firsts)
    out = config.parent
    first = next(iter(results.values()))
    usage = []
    if trained:
        usage = [
            ('Classify other images', f'python -m beitv2_mm predict IMAGES --from {out}'),
            (
                'Classify an image in Python',
                'from beitv2_mm.apis import ClassificationInferencer\n'
                f"ClassificationInferencer('{config}', '{artifact(first.folder)}')('x.jpg')",
            ),
        ]
    if options.probe or options.head == 'linear':
        usage.append(
            (
                'Train the whole network',
                f'python -m beitv2_mm finetune {options.folder} --from {options.source} '
                f'--out {out}_full',
            )
        )
    return ClassifierReport(
        title=f'Classifier of {found.folder.resolve().name}',
        summary=f'{label if trained else names["probe"]}, from {options.source}.',
        results={names[way]: value for way, value in ways.items()},
        num_images=held_out * len(found.classes),
        num_classes=len(found.classes),
        largest_class=100 * max(found.classes.values()) / sum(found.classes.values()),
        stages=_records(results),
        machine=describe_machine('auto'),
        settings=[('finetune', str(config), {})],
        limits=[
            *CHOSEN,
            'The images held out come from the same folders: new ones may look different.',
        ],
        commands=usage,
        pictures=curves_pictures(panels, FIRST_SEED if len(results) > len(ways) else ''),
    )


def _classifier_panels(runs: Mapping[str, Scalars]) -> list[Panel]:
    """Curves of several ways, by their labels."""
    losses = {label: run['loss'] for label, run in runs.items()}
    top1 = {label: run['val/accuracy/top1'] for label, run in runs.items()}
    return [
        Panel('Loss on training images', losses),
        Panel('Top-1 on images held out', top1, x_label='epoch', percent=True),
    ]


def _way(stage: str) -> str:
    """'scratch_seed2' -> 'scratch'"""
    return stage.split('_seed')[0]


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
        stages=_records(results),
        machine=describe_machine('auto'),
        settings=[('segment', str(config), {})],
        limits=[*CHOSEN, 'The images held out come from the same folder.'],
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


def _records(results: Results) -> list[StageRecord]:
    return [
        StageRecord(name, result.seconds, str(result.folder)) for name, result in results.items()
    ]


def read_held_out(tokenizer: Config) -> np.ndarray:
    """Images that the tokenizer was validated on, uint8 (M, H, W, C) of its size; unreadable ones
    are left out."""
    dataset = DATASETS.build(tokenizer.val_dataloader.dataset)
    size, images = tokenizer.model.encoder.img_size, []
    for index in range(min(len(dataset), NUM_IMAGES)):
        if dataset.channels != COLOURS:  # as the validation sees them
            images.append(dataset[index]['inputs'].permute(1, 2, 0).numpy())
            continue
        try:
            path = dataset.get_data_info(index)['img_path']
            image = Image.fromarray(read_image(path, dataset.white))
        except UnreadableImageError:
            continue
        images.append(np.asarray(centre_crop(image, size, size)))
    return np.stack(images)
