"""From finished trainings of a folder to a report."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from mmengine.config import Config
from PIL import Image

from beitv2_mm.apis.tokenize import centre_crop
from beitv2_mm.datasets import UnreadableImageError, read_image
from beitv2_mm.datasets.pixel_rules import COLOURS
from beitv2_mm.folder.survey import Survey
from beitv2_mm.quickstart.pictures import (
    code_pictures,
    curves_picture,
    describe_machine,
    pretraining_panels,
)
from beitv2_mm.quickstart.stages import Result, artifact
from beitv2_mm.registry import DATASETS
from beitv2_mm.visualization.curves import Panel, last_values, read_scalars
from beitv2_mm.visualization.report import ClassifierReport, PretrainingReport, StageRecord

Results = Mapping[str, Result]
NUM_IMAGES = 500  # of those held out, in the pictures
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
        codebook_usage=tokenizer.metrics['codebook_usage'],
        mim_accuracy=mim.metrics['accuracy_main'],
        mim_accuracy_aggregation=mim.metrics['accuracy_aggregation'],
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
            curves_picture(pretraining_panels(tokenizer.folder, mim.folder)),
            *code_pictures(
                images,
                (loaded['tokenizer'], loaded['pretrain']),
                (artifact(tokenizer.folder), artifact(mim.folder)),
                'images held out',
            ),
        ],
    )


def finetuning_report(
    results: Results, config: Path, found: Survey, source: Path
) -> ClassifierReport:
    """Figures of a fine-tuned classifier."""
    result = results['finetune']
    scalars = read_scalars(result.folder)
    top1 = last_values(scalars, ['val/accuracy/top1'])['val/accuracy/top1']
    held_out = Config.fromfile(config).val_dataloader.dataset.val_per_class
    panels = [
        Panel('Loss on training images', {'loss': scalars['loss']}),
        Panel('Images held out', {'top-1': scalars['val/accuracy/top1']}, percent=True),
    ]
    return ClassifierReport(
        title=f'Classifier of {found.folder.resolve().name}',
        summary=f'Fine-tuned from {source.resolve()}.',
        top1=top1,
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
        commands=[
            (
                'Classify an image in Python',
                'from beitv2_mm.apis import ClassificationInferencer\n'
                f"ClassificationInferencer('{config}', '{artifact(result.folder)}')('x.jpg')",
            )
        ],
        pictures=[curves_picture(panels)],
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
