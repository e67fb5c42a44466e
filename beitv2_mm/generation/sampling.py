"""Masked sampling of codes (Chang et al., MaskGIT, 2022, section 3.2): the surest ones first.

Every step predicts all masked codes, draws one for each position, keeps those with the highest
confidence and masks the others again. A cosine says how many stay masked.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Predict = Callable[[Tensor, Tensor], Tensor]  # codes (B, N), mask (B, N) -> logits (B, N, K)


def masked_counts(total: Tensor | int, steps: int) -> list[Tensor]:
    """The number of codes that are masked after each of the steps: floor(total * cos(pi t / 2 T)).

    Args:
        total: (B,) codes that are masked at the start, or one number.

    Raises:
        ValueError: there is no step.
    """
    if steps < 1:
        raise ValueError(f'Sampling takes at least one step, but steps={steps} was given.')
    total = torch.as_tensor(total)
    shares = [math.cos(math.pi * t / (2 * steps)) for t in range(1, steps)]
    # The cosine of a third of a turn is a little below one half in floating point.
    counts = [(total * share + 1e-6).floor().long() for share in shares]
    return [*counts, torch.zeros_like(total)]


def uniform_noise(seeds: list[int], steps: int, num_patches: int) -> Tensor:
    """Uniform random numbers of each image: (B, steps, 2, N), on the CPU.

    An image's numbers depend on its seed alone, so that neither the batch nor the device changes
    what is drawn.
    """
    shape = steps, 2, num_patches
    return torch.stack(
        [torch.rand(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )


@torch.no_grad()
def sample_codes(
    predict: Predict, codes: Tensor, mask: Tensor, noise: Tensor, temperature: float = 4.5
) -> Tensor:
    """Fills the masked codes; the others stay as they are: (B, N) -> (B, N).

    Args:
        codes: (B, N); what stands at masked positions has no meaning.
        mask: (B, N) bool, True where a code is to be drawn.
        noise: (B, steps, 2, N), see `uniform_noise`.
        temperature: how much chance has a say in which codes are kept; it falls to zero with the
            steps. More is more diverse.
    """
    steps = noise.shape[1]
    noise = noise.to(codes.device, non_blocking=True)
    for step, left in enumerate(masked_counts(mask.sum(1), steps)):
        probabilities = predict(codes, mask).float().softmax(-1)
        drawn = draw(probabilities, noise[:, step, 0])
        codes = torch.where(mask, drawn, codes)
        chance = -torch.log(-torch.log(noise[:, step, 1].clamp(1e-20, 1 - 1e-7)))  # Gumbel
        sure = probabilities.gather(-1, codes[..., None])[..., 0].clamp(min=1e-20).log()
        sure = sure + temperature * (1 - (step + 1) / steps) * chance
        sure = sure.masked_fill(~mask, math.inf)
        ranks = sure.argsort(1).argsort(1)  # 0 is the least sure
        mask = mask & (ranks < left[:, None])
    return codes


def draw(probabilities: Tensor, noise: Tensor) -> Tensor:
    """One code for each position, by the inverse of the distribution function.

    (..., K) and uniform numbers (...) -> (...), int64.
    """
    total = probabilities.cumsum(-1)
    below = torch.searchsorted(total, (noise.to(total) * total[..., -1])[..., None])[..., 0]
    return below.clamp(max=probabilities.shape[-1] - 1)


def checked_labels(
    labels: Sequence[int] | Tensor | None, num_classes: int, count: int
) -> Tensor | None:
    """The classes of so many images, ``num_classes`` for no class; None without classes.

    Raises:
        ValueError: there is no such class, or not one for each image.
    """
    if not num_classes:
        if labels is not None:
            raise ValueError('This generator was trained without classes: give labels=None.')
        return None
    wanted = torch.as_tensor([num_classes] * count if labels is None else labels)
    wrong = wanted[(wanted < 0) | (wanted > num_classes)].tolist()
    if wrong or len(wanted) != count:
        raise ValueError(
            f'Classes are numbers from 0 to {num_classes - 1}, one for each of the {count} images, '
            f'but {wrong or wanted.tolist()} were given.'
        )
    return wanted


def checked_mask(codes: Tensor, mask: Tensor | None, count: int) -> Tensor:
    """The mask, if it and the codes are (B, rows, columns) of so many images.

    Raises:
        ValueError: they are not.
    """
    if mask is None or mask.shape != codes.shape or codes.ndim != 3 or len(codes) != count:
        given = None if mask is None else tuple(mask.shape)
        raise ValueError(
            f'codes are {tuple(codes.shape)}, the mask is {given} and there are {count} seeds: '
            'codes and mask are (B, rows, columns), with a seed for each image.'
        )
    return mask
