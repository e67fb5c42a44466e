"""Seeds all random generators from numbers, such as (run seed, epoch, rank)."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

# The last number of a seed is its purpose, so that no two purposes share a stream. None of them is
# 0, because SeedSequence ignores zeros at the end.
MODEL, SAMPLE = 2, 3


def seed_generators(*numbers: int) -> None:
    """Seeds PyTorch (all devices), ``random`` and NumPy from ``numbers`` >= 0.

    SeedSequence mixes them, so that neighbouring epochs, ranks and workers are independent.
    """
    words = np.random.SeedSequence(numbers).generate_state(3, np.uint64).tolist()
    torch.manual_seed(words[0])
    random.seed(words[1])
    np.random.seed(words[2] % 2**32)


@contextmanager
def numpy_seed(seed: int) -> Iterator[None]:
    """Seeds NumPy's global generator inside, and restores its state afterwards."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)


def epoch_worker_init(worker_id: int) -> None:
    """Does nothing. Configs that earlier versions dumped name it as ``worker_init_fn``; today the
    training loops seed every sample (`beitv2_mm.engine.loops.ResumableLoader`)."""
