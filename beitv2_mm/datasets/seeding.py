"""Seeds all random generators from numbers, such as (run seed, epoch, rank)."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from beitv2_mm.registry import FUNCTIONS

# The last number of a seed is its purpose, so that no two purposes share a stream. None of them is
# 0, because SeedSequence ignores zeros at the end.
WORKERS, MODEL, SAMPLE = 1, 2, 3


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


@FUNCTIONS.register_module()
def epoch_worker_init(worker_id: int) -> None:
    """``worker_init_fn=dict(type=epoch_worker_init)`` of a training data loader.

    Derives a worker's seeds from PyTorch's own, which differ for every worker and change with
    every pass over the data (mmengine's default sets the same seeds in each epoch), and from the
    rank, because ranks usually start from the same seed. It needs ``persistent_workers=False``: a
    worker that stays alive is not seeded again, so a resumed run would see other data.

    Only mmengine's training loops need it: those of this package seed every sample
    (`beitv2_mm.engine.loops.ResumableLoader`).
    """
    # from the environment, because spawned workers have no process group
    seed_generators(torch.initial_seed(), int(os.environ.get('RANK', 0)))
