"""Configs as parameters of a test, most of them for the CPU only."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

TWIN = pytest.mark.not_pretended(reason='made small, it runs as the base recipe does')


def recipe_files(files: Iterable[Path]) -> list[Any]:
    """The files; those that differ from another one in size or weights are not pretended."""
    twins = ('large', '_from_')
    return [
        pytest.param(file, id=file.stem, marks=TWIN if any(t in file.stem for t in twins) else ())
        for file in files
    ]
