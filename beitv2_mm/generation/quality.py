"""How good made images are: PSNR, SSIM, and distances in the features of a teacher."""

import logging
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import Tensor

from beitv2_mm.models.base import Config
from beitv2_mm.models.frozen import Frozen
from beitv2_mm.multimodal import fit_map
from beitv2_mm.registry import METRICS


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """The Frechet distance of two normal distributions that are fitted to features (n, D), (m, D).

    It is what FID is in the features of Inception (Heusel et al., 2017, equation 6); in those of
    another network it is another number, which compares with no published FID.

    Raises:
        ValueError: one of them has fewer than two images.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError(f'{len(first)} and {len(second)} images: a covariance needs two.')
    a: np.ndarray = first.astype(np.float64)
    b: np.ndarray = second.astype(np.float64)
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # The eigenvalues of a product of two covariances are real and not negative, but for rounding.
    roots = np.sqrt(np.linalg.eigvals(np.atleast_2d(cov_a @ cov_b)).real.clip(min=0))
    means = np.square(a.mean(0) - b.mean(0)).sum()
    return float(means + np.trace(np.atleast_2d(cov_a + cov_b)) - 2 * roots.sum())


@METRICS.register_module()
class ImageQualityMetric(BaseMetric):
    """Quality of the images that a model has written into the data samples beside ``image``.

    For 'decoded', images from their own codes: ``psnr`` in decibels and ``ssim``. For each field,
    ``frechet_FIELD``: the Frechet distance of its images from the real ones in the teacher's
    features, averaged over the patches. ``frechet_real`` is that of the two halves of the real
    images, about what a perfect generator reaches with as few. With classes, ``class_FIELD`` is the
    percentage of images whose class a linear classifier on these features finds. It is fitted to
    the even half of the real images, and to the same images decoded if there are any, so that it
    knows how a pixel decoder paints; ``class_real`` and ``class_decoded`` are for the odd half.

    Args:
        teacher: config of a `TimmTeacher`; None leaves all but PSNR and SSIM out.
        fields: of the data samples.

    Raises:
        ImportError: torchmetrics is not installed.
    """

    default_prefix = 'quality'

    def __init__(
        self,
        teacher: Config | None = None,
        fields: Sequence[str] = ('decoded',),
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix)
        # Now, so that neither a missing package, which the extra `gen` installs, nor a teacher
        # without weights ends a training at its first validation.
        self._functional = import_module('torchmetrics.functional.image')
        self.fields = tuple(fields)
        self._teacher = Frozen.of(teacher) if teacher is not None else None
        if self._teacher is not None:
            self._teacher.like(torch.empty(0))

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keeps a few numbers of each image: those of the pair, and the features."""
        result: dict[str, Tensor] = {}
        stacked = {k: torch.stack([s[k] for s in data_samples]) for k in ('image', *self.fields)}
        if 'decoded' in stacked:
            pair = stacked['decoded'], stacked['image']
            result['psnr'] = self._functional.peak_signal_noise_ratio(
                *pair, data_range=1.0, reduction='none', dim=(1, 2, 3)
            )
            result['ssim'] = self._functional.structural_similarity_index_measure(
                *pair, data_range=1.0, reduction='none'
            )
        if self._teacher is not None:
            for name, images in stacked.items():
                result[name] = self._teacher.like(images)(images, (1, 1))[:, 0].float()
        if 'gt_label' in data_samples[0]:
            result['label'] = torch.cat([s['gt_label'].view(1) for s in data_samples])
        if 'accuracy' in data_samples[0]:
            result['accuracy'] = torch.stack([s['accuracy'] for s in data_samples])
        columns = {name: value.cpu().numpy() for name, value in result.items()}
        for i in range(len(data_samples)):
            self.results.append({name: value[i] for name, value in columns.items()})

    def compute_metrics(self, results: list[dict[str, np.ndarray]]) -> dict[str, float]:
        """The metrics over all images."""
        columns = {name: np.stack([result[name] for result in results]) for name in results[0]}
        metrics: dict[str, float] = {
            name: float(columns[name].mean())
            for name in ('psnr', 'ssim', 'accuracy')
            if name in columns
        }
        if self._teacher is None:
            return metrics
        real, labels = columns['image'], columns.get('label')
        even, odd = slice(None, None, 2), slice(1, None, 2)
        if len(real) < 4:
            why = f'no Frechet distance: {len(real)} images, and those of two halves need four'
            print_log(why, 'current', logging.WARNING)  # a training goes on
            return metrics
        metrics['frechet_real'] = frechet_distance(real[even], real[odd])
        for name in self.fields:
            metrics[f'frechet_{name}'] = frechet_distance(columns[name], real)
        if labels is not None:
            halves = [columns[name] for name in ('image', 'decoded') if name in columns]
            taught = np.concatenate([features[even] for features in halves])
            classify = fit_classifier(taught, np.tile(labels[even], len(halves)))
            for name in ('image', *self.fields):
                asked = odd if name in ('image', 'decoded') else slice(None)
                right = classify(columns[name][asked]) == labels[asked]
                metrics[f'class_{"real" if name == "image" else name}'] = 100 * float(right.mean())
        return metrics


def fit_classifier(features: np.ndarray, labels: np.ndarray, ridge: float = 0.1) -> Any:
    """A linear classifier by ridge regression: features (n, D) -> a function to labels (n,).

    Args:
        ridge: weight of the penalty, in units of the features' mean variance.
    """
    classes, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    weights = fit_map(features, index, np.eye(len(classes)), ridge)
    mean, priors = features.mean(0), counts / len(labels)
    return lambda new: classes[((new - mean) @ weights + priors).argmax(1)]
