"""Verdicts on results: figures against their baselines -> sentences, by the rules below."""

import math
from typing import Literal, NamedTuple

from beitv2_mm.visualization.accuracy import Accuracy, percent

# Something was learnt if the result reaches these:
GAP = 0.1  # of a tokenizer: share of the way from the best constant output to a cosine of 1
FACTOR = 1.5  # of a network: multiple of the score of guessing
ERRORS = 2.3  # of a classifier: standard errors above chance; luck reaches them in 1 of 100 cases
PRECISION = 5.0  # of a detector: AP at an overlap of a half, in per cent
SPREADS = 2  # of one training against another: standard deviations of the difference of two seeds


class Finding(NamedTuple):
    """A sentence or two, and whether they are good news; 'open' where the figures cannot tell."""

    kind: Literal['good', 'bad', 'open']
    text: str


SMOKE = Finding(
    'open', 'This was a smoke run: it shows that every part works. Its figures mean nothing.'
)


def judge_tokenizer(cosine: float, constant: float) -> Finding:
    """The cosine to the teacher against that of the best constant output."""
    figures = (
        f'its cosine to the teacher is {cosine:.3f}, and the best output that ignores the image '
        f'reaches {constant:.3f}'
    )
    enough = cosine - constant >= GAP * (1 - constant)
    advice = 'Train it for longer, or see docs/guides/tokenizer.md.'
    return _learnt(enough, 'tokenizer', figures, advice, source=' from its teacher')


def judge_pretraining(accuracy: float, constant: float) -> Finding:
    """The accuracy on masked patches against that of always predicting the commonest code."""
    figures = (
        f'{percent(accuracy)} of the codes of hidden patches are right, and always predicting the '
        f'commonest code gives {percent(constant)}'
    )
    advice = 'Train it for longer, or see "What to watch" in docs/guides/pretraining.md.'
    return _learnt(accuracy >= FACTOR * constant, 'pretraining', figures, advice)


def judge_classifier(result: Accuracy, num_classes: int, num_images: int) -> Finding:
    """A top-1 accuracy against chance, on the same number of images of each class."""
    chance = 100 / num_classes
    error = math.sqrt(chance * (100 - chance) / num_images)
    figures = f'{percent(result.mean)} of the images are classified right'
    if result.mean < chance + ERRORS * error:
        return Finding(
            'open' if result.mean > chance else 'bad',
            f'As far as {num_images:,} images can tell, the classifier is no better than chance: '
            f'{figures}, and guessing gives {percent(chance)}. See docs/guides/classification.md.',
        )
    return Finding(
        'good', f'The classifier has learnt: {figures}, and guessing gives {percent(chance)}.'
    )


def judge_gain(result: Accuracy, other: Accuracy, names: tuple[str, str]) -> Finding:
    """One way of training against another; `names` are their names within a sentence."""
    gain, (name, other_name) = result.mean - other.mean, names
    start = name[0].upper() + name[1:]
    figures = f'the top-1 accuracy is {percent(result.mean)} against {percent(other.mean)}'
    spread = math.hypot(result.spread, other.spread)
    if min(len(result.per_seed), len(other.per_seed)) < 2:
        return Finding(
            'open',
            f'The difference between {name} and {other_name} is {gain:+.1f} points: {figures}. '
            'One seed does not tell whether this is luck: train with several.',
        )
    spreads = f'seeds differ by ± {result.spread:.1f} and ± {other.spread:.1f}'
    if abs(gain) <= SPREADS * spread:
        return Finding(
            'open',
            f'There is no clear difference between {name} and {other_name}: {figures}, and '
            f'{spreads}.',
        )
    if gain < 0:
        return Finding('bad', f'{start} does worse than {other_name}: {figures}.')
    return Finding(
        'good',
        f'{start} gains {gain:.1f} points over {other_name}: {figures}, and {spreads}.',
    )


def judge_segmentor(miou: float, constant: float) -> Finding:
    """The mean IoU against that of predicting the commonest class everywhere."""
    figures = (
        f'its mean IoU is {percent(miou)}, and the commonest class everywhere gives '
        f'{percent(constant)}'
    )
    advice = 'See docs/guides/segmentation.md.'
    return _learnt(miou >= FACTOR * constant, 'segmentor', figures, advice)


def judge_detector(precision: float) -> Finding:
    """The AP of boxes at an overlap of a half; that of a detector that knows nothing is near 0."""
    figures = f'its average precision at an overlap of a half is {percent(precision)}'
    advice = 'Train it for longer, or see docs/guides/detection.md.'
    return _learnt(precision >= PRECISION, 'detector', figures, advice)


def _learnt(enough: bool, name: str, figures: str, advice: str, source: str = '') -> Finding:
    if enough:
        return Finding('good', f'The {name} has learnt{source}: {figures}.')
    return Finding('bad', f'The {name} has hardly learnt anything: {figures}. {advice}')
