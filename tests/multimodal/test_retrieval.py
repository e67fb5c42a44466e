"""Recall of retrieval against counting by hand."""

import numpy as np
import pytest

from beitv2_mm.multimodal.retrieval import RetrievalMetric, first_hits

pytestmark = pytest.mark.cpu_only(reason='arrays, nothing is computed on a device')


def test_first_hits() -> None:
    scores = np.array([[0.9, 0.8, 0.1], [0.2, 0.5, 0.7], [0.4, 0.4, 0.4]])
    right = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]], bool)
    assert first_hits(scores, right).tolist() == [1, 0, 2]  # of equal scores, the wrong ones first


def result(image: str, text: str, angle: float, text_angle: float, group: str = '') -> dict:
    vectors = [np.array([np.cos(a), np.sin(a)]) for a in (angle, text_angle)]
    return dict(
        image=image, text=text, group=group, image_vector=vectors[0], text_vector=vectors[1]
    )


def test_images_and_texts_count_once_each() -> None:
    """'a' has two captions, and the caption 'x' two images."""
    results = [
        result('a', 'x', 0.0, 0.1, 'old'),
        result('a', 'y', 0.0, 1.0, 'old'),
        result('b', 'x', 0.9, 0.1, 'old'),
        result('c', 'z', 1.6, 1.5, 'new'),
    ]
    found = RetrievalMetric(ks=(1, 2)).compute_metrics(results)
    # a -> x right; b -> y (0.1 away) wrong, then z (0.6), then x (0.8); c -> z right
    assert found['image_to_text/r1'] == pytest.approx(200 / 3)
    assert found['image_to_text/r2'] == pytest.approx(200 / 3)
    # x -> a right; y -> b wrong, then c, then a; z -> c right
    assert found['text_to_image/r1'] == pytest.approx(200 / 3)
    assert found['image_to_text/r1_old'] == 50 and found['image_to_text/r1_new'] == 100
    assert found['text_to_image/r1_old'] == 50 and 'image_to_text/r1_' not in found
