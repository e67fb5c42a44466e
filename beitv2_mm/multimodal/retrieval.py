"""Retrieval: unit vectors of images and texts -> the share of queries whose first K answers hold a
right one, in both directions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from beitv2_mm.registry import METRICS


@METRICS.register_module()
class RetrievalMetric(BaseMetric):
    """Recall at K, in per cent: 'image_to_text/r1', 'text_to_image/r1' and so on.

    Each image and each text is a candidate once, however many items hold it. Right are the texts
    that the data set pairs with an image, and its images with a text. Groups of the data set are
    reported as 'image_to_text/r1_GROUP' too: queries of the group, candidates of all.

    Args:
        ks: numbers of answers.
    """

    default_prefix = 'retrieval'

    def __init__(self, ks: Sequence[int] = (1, 5), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ks = tuple(ks)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keeps the vectors of a batch."""
        for sample in data_samples:
            self.results.append(
                dict(
                    image=sample['img_path'],
                    text=sample['caption'],
                    group=sample.get('group', ''),
                    image_vector=sample['image_vector'].float().cpu().numpy(),
                    text_vector=sample['text_vector'].float().cpu().numpy(),
                )
            )

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Recall of all queries, and of each group."""
        images = {item['image']: item['image_vector'] for item in results}
        texts = {item['text']: item['text_vector'] for item in results}
        rows = {name: i for i, name in enumerate(images)}
        columns = {name: i for i, name in enumerate(texts)}
        right: np.ndarray = np.zeros((len(images), len(texts)), bool)
        groups: dict[str, tuple[set[int], set[int]]] = {}
        for item in results:
            pair = rows[item['image']], columns[item['text']]
            right[pair] = True
            of_images, of_texts = groups.setdefault(item['group'], (set(), set()))
            of_images.add(pair[0])
            of_texts.add(pair[1])
        scores = np.stack([*images.values()]) @ np.stack([*texts.values()]).T
        found: dict[str, float] = {}
        for name, score, wanted, side in (
            ('image_to_text', scores, right, 0),
            ('text_to_image', scores.T, right.T, 1),
        ):
            hits = first_hits(score, wanted)
            for k in self.ks:
                found[f'{name}/r{k}'] = 100 * float((hits < k).mean())
                for group, members in groups.items():
                    if group:
                        of_group = hits[sorted(members[side])]
                        found[f'{name}/r{k}_{group}'] = 100 * float((of_group < k).mean())
        return found


def first_hits(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The place, from 0, of the first right answer of each query: (Q, A) twice -> (Q,).

    Of equal scores the wrong answers come first, so that a model which tells nothing apart is not
    right by the order of the data.
    """
    best = np.where(right, scores, -np.inf).max(1, keepdims=True)
    return ((scores >= best) & ~right).sum(1)
