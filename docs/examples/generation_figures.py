"""How good generated images are, beside what their codes allow and what needs no training.

    python docs/examples/generation_figures.py TRAIN TEST CONFIG CHECKPOINT

TRAIN and TEST hold one folder of images for each class; CONFIG, that in the work directory of the
generator's training, names tokenizer, pixel decoder and the teacher whose features are compared.
The last of the rows draws each code by its frequency at this position in images of the class.
Columns: the Frechet distance of ten classes' 1,000 images from 1,500 test images, and how many are
of the class that a linear classifier of the features finds. The first is taught by 2,000 training
images; the second by these and what is decoded from their codes, so that it can read such images.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config

from beitv2_mm.apis import ImageGenerator, find_images
from beitv2_mm.datasets import read_image
from beitv2_mm.generation import fit_classifier, frechet_distance
from beitv2_mm.registry import MODELS

BATCH = 250

parser = argparse.ArgumentParser(description=__doc__)
for argument in ('train', 'test', 'config', 'checkpoint'):
    parser.add_argument(argument)
parser.add_argument('--count', type=int, default=100, help='images of each class (%(default)s)')
parser.add_argument('--seed', type=int, default=0)
args = parser.parse_args()

generator = ImageGenerator(args.config, args.checkpoint)
model = generator.model
names, count = generator.classes, args.count
evaluator = Config.fromfile(args.config).val_evaluator
device = next(model.parameters()).device
teacher = MODELS.build(evaluator.teacher).eval().to(device)
random = np.random.default_rng(args.seed)


def read(folder: str, start: int, stop: int | None) -> torch.Tensor:
    """The images of a folder of classes from ``start`` to ``stop``: (classes, M, 3, H, W) uint8."""
    files = [find_images([Path(folder, name)])[start:stop] for name in names]
    images = np.stack([[read_image(file) for file in part] for part in files])
    return torch.from_numpy(images).permute(0, 1, 4, 2, 3)


@torch.no_grad()
def features(images: torch.Tensor) -> np.ndarray:
    """uint8 (..., 3, H, W) -> the teacher's mean features (n, D)."""
    parts = (part.to(device) / 255 for part in images.flatten(0, -4).split(BATCH))
    return torch.cat([teacher(part, (1, 1))[:, 0] for part in parts]).cpu().numpy()


@torch.no_grad()
def codes(images: torch.Tensor) -> torch.Tensor:
    """(M, 3, H, W) -> (M, rows, columns)."""
    return torch.cat([model.codes(part.to(device)) for part in images.split(BATCH)])


def paint(codes: torch.Tensor) -> torch.Tensor:
    """(M, rows, columns) -> (M, 3, H, W), uint8 as files hold them."""
    parts = (model.paint(part) * 255 for part in codes.split(BATCH))
    return torch.cat([part.round().byte() for part in parts])


every = torch.stack([codes(images) for images in read(args.train, 0, None)])
rows, columns = every.shape[2:]
drawn = torch.from_numpy(random.integers(every.shape[1], size=(len(names), count, rows, columns)))
by_frequency = every.gather(1, drawn.to(device)).flatten(0, 1)
labels = np.repeat(np.arange(len(names)), count)
seeds = range(args.seed * len(labels), (args.seed + 1) * len(labels))

taught = read(args.train, 0, 2 * count).flatten(0, 1)
taught_labels = np.repeat(np.arange(len(names)), 2 * count)
sharp, painted = features(taught), features(paint(codes(taught)))
classifiers = (
    fit_classifier(sharp, taught_labels),
    fit_classifier(np.concatenate([sharp, painted]), np.tile(taught_labels, 2)),
)
compared = 3 * count // 2
real = features(read(args.test, 0, compared))
others = read(args.test, compared, compared + count)
generated = torch.from_numpy(generator.generate(labels.tolist(), seeds)).permute(0, 3, 1, 2)
table = {
    'training images': read(args.train, 2 * count, 3 * count),
    'test images from their codes': paint(codes(others.flatten(0, 1))),
    'generated': generated,
    'codes by frequency': paint(by_frequency),
}
print('| images | Frechet distance | class found | by one that knows decoded images |')
print('|---|---|---|---|')
for name, images in table.items():
    found = features(images)
    right = [f'{100 * np.mean(classify(found) == labels):.1f} %' for classify in classifiers]
    print('|', name, '|', f'{frechet_distance(found, real):.0f}', '|', ' | '.join(right), '|')
