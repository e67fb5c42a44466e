"""Every rule says both: that something was learnt, and that it was not."""

import pytest

from beitv2_mm.visualization import accuracy
from beitv2_mm.visualization.verdict import (
    judge_classifier,
    judge_gain,
    judge_pretraining,
    judge_segmentor,
    judge_tokenizer,
)

pytestmark = pytest.mark.cpu_only(reason='sentences, nothing is computed')
NAMES = 'pretraining', 'training from scratch'


@pytest.mark.parametrize(
    ('cosine', 'constant', 'kind'),
    [(0.07, 0.0, 'bad'), (0.33, 0.32, 'bad'), (0.27, 0.32, 'bad'), (0.488, 0.32, 'good')],
)
def test_tokenizer(cosine: float, constant: float, kind: str) -> None:
    finding = judge_tokenizer(cosine, constant)
    assert finding.kind == kind
    assert f'{cosine:.3f}' in finding.text and f'{constant:.3f}' in finding.text
    assert ('hardly learnt' in finding.text) == (kind == 'bad') == ('tokenizer.md' in finding.text)


@pytest.mark.parametrize(('accuracy', 'kind'), [(2.0, 'bad'), (2.9, 'bad'), (9.3, 'good')])
def test_pretraining(accuracy: float, kind: str) -> None:
    finding = judge_pretraining(accuracy, constant=2.0)
    assert finding.kind == kind
    assert 'commonest code gives 2.0 %' in finding.text


def test_classifier_beats_chance_by_more_than_the_images_can_hide() -> None:
    """Of 100 images in 10 classes, 10 % are right by chance, give or take 3 %."""
    assert judge_classifier(accuracy([10.0]), 10, 100).kind == 'bad'
    assert judge_classifier(accuracy([16.0]), 10, 100).kind == 'open'
    assert judge_classifier(accuracy([20.0]), 10, 100).kind == 'good'
    assert judge_classifier(accuracy([100.0]), 2, 8).kind == 'good'
    assert judge_classifier(accuracy([12.0]), 10, 10_000).kind == 'good'


@pytest.mark.parametrize(
    ('one', 'other', 'kind', 'text'),
    [
        ([50.0, 51.0], [40.0, 41.0], 'good', 'Pretraining gains 10.0 points over training from'),
        ([40.0, 41.0], [50.0, 51.0], 'bad', 'Pretraining does worse than training from scratch'),
        ([50.0, 55.0], [48.0, 51.0], 'open', 'no clear difference between pretraining and'),
        ([50.0], [40.0], 'open', 'is +10.0 points: the top-1 accuracy is 50.0 % against 40.0 %'),
    ],
)
def test_gain_against_the_spread_of_both(
    one: list[float], other: list[float], kind: str, text: str
) -> None:
    finding = judge_gain(accuracy(one), accuracy(other), NAMES)
    assert finding.kind == kind and text in finding.text


def test_segmentor() -> None:
    assert judge_segmentor(7.0, 6.8).kind == 'bad'
    assert judge_segmentor(37.4, 6.8).kind == 'good'
