"""Schedules give the rates of mmengine's pairs of schedulers, and go on from their checkpoints."""

import numpy as np
import pytest
import torch
from mmengine.optim import CosineAnnealingLR, LinearLR, PolyLR
from torch import nn

from beitv2_mm.engine import WarmupCosineLR, WarmupLinearLR

LR = 1e-3
STEPS = 40
SETTINGS = [(0, 0.0, 0.0), (2, 1e-6, 1e-6), (7, 1e-6, 1e-5), (12, 1e-5, 0.0), (40, 1e-6, 0.0)]


def optimizer() -> torch.optim.Optimizer:
    """Two groups, the second at a tenth of the rate, as layer-wise decay makes them."""
    groups = [dict(params=[nn.Parameter(torch.zeros(1))], lr=lr) for lr in (LR, LR / 10)]
    return torch.optim.SGD(groups, lr=LR)


def rates(schedulers: list, steps: int = STEPS) -> np.ndarray:
    """The rates of both groups in every step: (steps, 2)."""
    found = []
    used = schedulers[0].optimizer
    for _ in range(steps):
        found.append([group['lr'] for group in used.param_groups])
        used.step()
        for scheduler in schedulers:
            scheduler.step()
    return np.array(found)


def mmengine_pair(decay: str, warmup: int, start_lr: float, min_lr: float) -> list:
    used, schedulers = optimizer(), []
    if warmup:
        schedulers = [LinearLR(used, start_lr / LR, end=warmup)]
    if warmup < STEPS and decay == 'cosine':
        schedulers.append(
            CosineAnnealingLR(used, eta_min_ratio=min_lr / LR, begin=warmup, end=STEPS)
        )
    elif warmup < STEPS:
        schedulers.append(PolyLR(used, power=1.0, eta_min=min_lr, begin=warmup, end=STEPS))
    return schedulers


@pytest.mark.parametrize('setting', SETTINGS)
def test_the_cosine_is_that_of_mmengine(setting: tuple[int, float, float]) -> None:
    ours = WarmupCosineLR(optimizer(), *setting, end=STEPS)
    np.testing.assert_allclose(rates([ours]), rates(mmengine_pair('cosine', *setting)), rtol=1e-9)


@pytest.mark.parametrize('setting', [(warmup, start, 0.0) for warmup, start, _ in SETTINGS])
def test_the_line_is_that_of_mmengine(setting: tuple[int, float, float]) -> None:
    ours = WarmupLinearLR(optimizer(), *setting, end=STEPS)
    np.testing.assert_allclose(rates([ours]), rates(mmengine_pair('linear', *setting)), rtol=1e-9)


def test_a_warm_up_of_one_step_reaches_the_rate() -> None:
    """mmengine's pair, whose schedulers multiply the rate before, would stay at the start."""
    found = rates([WarmupCosineLR(optimizer(), 1, 1e-6, 0.0, end=STEPS)])
    np.testing.assert_allclose(found[:2, 0], [1e-6, LR])


def test_parts_of_an_epoch() -> None:
    built = WarmupCosineLR.build_iter_from_epoch(
        optimizer(), warmup=0.25, begin=1, end=3, epoch_length=10
    )
    assert (built.warmup, built.begin, built.end, built.by_epoch) == (2, 10, 30, False)
    with pytest.raises(ValueError, match='in epochs'):
        WarmupCosineLR.build_iter_from_epoch(optimizer(), warmup=1, by_epoch=False, epoch_length=10)


@pytest.mark.parametrize('step', [3, 7, 20])
def test_a_checkpoint_with_two_schedulers_goes_on(step: int) -> None:
    """As checkpoints from before these schedules have them; the optimizer restores its groups."""
    setting = (7, 1e-6, 1e-5)
    whole = rates([WarmupCosineLR(optimizer(), *setting, end=STEPS)])
    old = mmengine_pair('cosine', *setting)
    rates(old, step)
    resumed = WarmupCosineLR(optimizer(), *setting, end=STEPS)
    resumed.optimizer.load_state_dict(old[0].optimizer.state_dict())
    resumed.load_state_dict(old[0].state_dict())
    np.testing.assert_allclose(rates([resumed], STEPS - step), whole[step:], rtol=1e-9)


def test_a_state_goes_on_and_a_longer_training_has_a_longer_decay() -> None:
    first = WarmupCosineLR(optimizer(), 5, 0.0, 0.0, end=STEPS)
    rates([first], 10)
    same, longer = (WarmupCosineLR(optimizer(), 5, 0.0, 0.0, end=n) for n in (STEPS, 2 * STEPS))
    for resumed in (same, longer):
        resumed.optimizer.load_state_dict(first.optimizer.state_dict())
        resumed.load_state_dict(first.state_dict())
    np.testing.assert_array_equal(rates([same], 1), rates([first], 1))
    expected = rates([WarmupCosineLR(optimizer(), 5, 0.0, 0.0, end=2 * STEPS)], 2 * STEPS)
    assert rates([longer], 2 * STEPS - 10)[1:] == pytest.approx(expected[11:], rel=1e-9)


@pytest.mark.parametrize('name', ['start_lr', 'min_lr'])
def test_a_rate_above_the_optimizers_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf'{name}=0.01 .* lr=0.001: lower param_scheduler.{name}'):
        WarmupCosineLR(optimizer(), 5, **{name: 0.01})
