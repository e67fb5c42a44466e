"""Options and limits that all tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

# Toy models: threads cost more than they give, and several tests start processes of their own.
os.environ.setdefault('OMP_NUM_THREADS', '1')

import pytest
import torch
from mmengine.registry import DefaultScope

import beitv2_mm  # noqa: F401  its compat, before any test imports mmseg

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_scope_left() -> Iterator[None]:
    """A runner's default scope outlives it, and mmpretrain's RandAugment looks in no other."""
    yield
    DefaultScope._instance_dict.clear()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        '--golden',
        default=str(Path(__file__).parent / 'golden'),
        metavar='DIR',
        help='folder of golden cases for test_golden.py',
    )
