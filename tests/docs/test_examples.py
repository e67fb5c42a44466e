"""Examples in docstrings, which the reference shows, give what they say."""

import doctest
import re
from importlib import import_module
from pathlib import Path

import pytest

pytestmark = pytest.mark.cpu_only(reason='shows what the reference shows')

ROOT = Path(__file__).parents[2]
MODULES = [
    '.'.join(file.relative_to(ROOT).with_suffix('').parts)
    for file in sorted((ROOT / 'beitv2_mm').rglob('*.py'))
    if re.search(r'^ *>>> ', file.read_text(), re.M)
]


@pytest.mark.parametrize('name', MODULES)
def test_examples(name: str) -> None:
    result = doctest.testmod(import_module(name))
    assert result.attempted and not result.failed


def test_there_are_examples() -> None:
    assert len(MODULES) >= 8
