"""The schedule, the draws, and what sampling leaves as it is."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from beitv2_mm.generation import masked_counts, sample_codes, uniform_noise
from beitv2_mm.generation.sampling import draw

CODES = 7


def favourite(codes: Tensor, mask: Tensor) -> Tensor:
    """Logits that depend on what is visible: the more is masked, the less sure."""
    visible = (~mask).float().mean(1)[:, None, None]
    base = torch.linspace(0, 3, CODES).roll(1) * (1 + visible)
    position = torch.arange(mask.shape[1])[:, None] / 10
    return (base + position).expand(*mask.shape, CODES)


@pytest.mark.parametrize('total', [1, 9, 64, 256])
@pytest.mark.parametrize('steps', [1, 2, 3, 8, 12])
def test_numbers_of_masked_codes_are_those_of_the_formula(total: int, steps: int) -> None:
    counts = [int(count) for count in masked_counts(total, steps)]
    exact = [np.floor(total * np.cos(np.pi / 2 * t / steps) + 1e-6) for t in range(1, steps)]
    assert counts == [*exact, 0]
    assert counts == sorted(counts, reverse=True)


def test_as_many_codes_are_masked_in_each_step() -> None:
    seen: list[list[int]] = []

    def watch(codes: Tensor, mask: Tensor) -> Tensor:
        seen.append(mask.sum(1).tolist())
        return favourite(codes, mask)

    mask = torch.ones(2, 16, dtype=torch.bool)
    mask[1, :6] = False  # ten are missing
    sample_codes(watch, torch.zeros(2, 16, dtype=torch.long), mask, uniform_noise([0, 1], 4, 16))
    counts = masked_counts(torch.tensor([16, 10]), 4)
    assert seen == [[16, 10], *(count.tolist() for count in counts[:-1])]


def test_visible_codes_never_change() -> None:
    codes = torch.randint(CODES, (3, 16), generator=torch.Generator('cpu').manual_seed(0))
    codes = torch.as_tensor(codes.tolist())
    mask = torch.as_tensor((np.arange(48).reshape(3, 16) % 3 == 0).tolist())
    found = sample_codes(favourite, codes, mask, uniform_noise([0, 1, 2], 5, 16))
    assert torch.equal(found[~mask], codes[~mask])
    assert not torch.equal(found, codes)
    all_given = sample_codes(
        favourite, codes, torch.zeros_like(mask), uniform_noise([0] * 3, 5, 16)
    )
    assert torch.equal(all_given, codes)


def test_draws_have_the_given_distribution() -> None:
    shares = torch.as_tensor([0.5, 0.2, 0.0, 0.3])
    noise = torch.as_tensor(((np.arange(4000) + 0.5) / 4000).tolist())
    drawn = draw(shares.expand(4000, 4), noise)
    found = torch.bincount(drawn.cpu(), minlength=4) / 4000
    torch.testing.assert_close(
        found, torch.tensor([0.5, 0.2, 0.0, 0.3], device='cpu'), atol=1e-3, rtol=0
    )
    assert draw(shares, torch.as_tensor(1.0)) == 3


def test_noise_of_an_image_depends_on_its_seed_alone() -> None:
    both, one = uniform_noise([3, 5], 4, 9), uniform_noise([5], 4, 9)
    assert torch.equal(both[1:], one) and not torch.equal(both[0], both[1])


@pytest.mark.parametrize('steps', [0, -2])
def test_no_step_is_refused(steps: int) -> None:
    with pytest.raises(ValueError, match=f'at least one step, but steps={steps}'):
        masked_counts(4, steps)


def test_without_chance_the_surest_are_kept_first() -> None:
    """At temperature 0, after one of two steps the kept ones are the most probable."""
    seen: list[Tensor] = []

    def watch(codes: Tensor, mask: Tensor) -> Tensor:
        seen.append(mask)
        sure = torch.arange(16) / 2
        return torch.stack([sure, -sure], -1).expand(1, 16, 2)

    mask = torch.ones(1, 16, dtype=torch.bool)
    sample_codes(
        watch, torch.zeros_like(mask, dtype=torch.long), mask, uniform_noise([0], 2, 16), 0.0
    )
    left = math.floor(16 * math.cos(math.pi / 4))
    assert seen[1][0].nonzero().flatten().tolist() == list(range(left))
