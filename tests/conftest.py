"""Options and limits that all tests share."""

import os
from pathlib import Path

# Toy models: threads cost more than they give, and several tests start processes of their own.
os.environ.setdefault('OMP_NUM_THREADS', '1')

import pytest
import torch

import beitv2_mm  # noqa: F401  its compat, before any test imports mmseg

torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        '--golden',
        default=str(Path(__file__).parent / 'golden'),
        metavar='DIR',
        help='folder of golden cases for test_golden.py',
    )
