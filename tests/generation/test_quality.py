"""PSNR, SSIM and the Frechet distance against formulas and another implementation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from beitv2_mm.checkpoint import CheckpointError
from beitv2_mm.generation import ImageQualityMetric, fit_classifier, frechet_distance
from support.tiny import cifar_images, teacher_config


def test_frechet_distance_is_that_of_the_matrix_square_root() -> None:
    random = np.random.default_rng(0)
    a, b = (
        random.normal(size=(60, 8)),
        random.normal(0.5, 2, size=(50, 8)) @ random.normal(size=(8, 8)),
    )
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    expected = np.square(a.mean(0) - b.mean(0)).sum()
    expected += np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-8)
    assert frechet_distance(a, a + 3) == pytest.approx(9 * 8)
    few = random.normal(size=(5, 40))  # fewer than features: a singular covariance
    assert np.isfinite(frechet_distance(few, few[:3]))
    with pytest.raises(ValueError, match='1 and 60 images: a covariance needs two'):
        frechet_distance(a[:1], a)


def test_metric_of_images(tmp_path: Path) -> None:
    images = cifar_images(20)
    decoded = (images + 0.1).clamp(0, 1)
    metric = ImageQualityMetric(teacher_config(tmp_path), ('decoded', 'generated'))
    samples = [
        dict(image=image, decoded=made, generated=image.flip(2), gt_label=torch.tensor([i // 2]))
        for i, (image, made) in enumerate(zip(images, decoded, strict=True))
    ]
    for part in (samples[:7], samples[7:]):
        metric.process({}, part)
    found = metric.evaluate(20)
    error = (decoded - images).square().mean((1, 2, 3))
    assert found['quality/psnr'] == pytest.approx((-10 * error.log10()).mean().item(), rel=1e-5)
    assert 0.5 < found['quality/ssim'] < 1
    assert found['quality/frechet_decoded'] > 0
    assert found['quality/frechet_generated'] < found['quality/frechet_decoded']
    names = {'real', 'decoded', 'generated'}
    assert {f'quality/{kind}_{n}' for kind in ('frechet', 'class') for n in names} <= found.keys()


def test_identical_images_are_perfect(tmp_path: Path) -> None:
    metric = ImageQualityMetric()
    metric.process({}, [dict(image=image, decoded=image) for image in cifar_images()])
    found = metric.evaluate(4)
    assert found['quality/ssim'] == pytest.approx(1) and found['quality/psnr'] > 60
    few = ImageQualityMetric(teacher_config(tmp_path))
    few.process({}, [dict(image=image, decoded=image) for image in cifar_images(3)])
    assert few.evaluate(3).keys() == {'quality/psnr', 'quality/ssim'}  # no training ends by that


def test_a_teacher_without_weights_is_said_at_once(tmp_path: Path) -> None:
    config = teacher_config(tmp_path)
    Path(config['checkpoint']).unlink()
    with pytest.raises(CheckpointError, match=r'There is no checkpoint .*test_vit\.safetensors'):
        ImageQualityMetric(config)


def test_linear_classifier_finds_clusters() -> None:
    random = np.random.default_rng(0)
    centres, labels = random.normal(0, 3, (3, 6)), np.arange(90) % 3
    features = (centres[labels] + random.normal(size=(90, 6))).astype(np.float32)
    classify = fit_classifier(features, labels + 4)
    fresh = centres[labels] + random.normal(size=(90, 6))
    assert np.mean(classify(fresh) == labels + 4) > 0.9
