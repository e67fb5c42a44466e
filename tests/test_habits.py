"""What a contributor relies on: the commit hooks are what CI lints, the version stands once."""

import re
from pathlib import Path

import pytest

import beitv2_mm

pytestmark = pytest.mark.cpu_only(reason='files, nothing is computed')

ROOT = Path(__file__).parents[1]


def test_commit_hooks_run_what_ci_lints() -> None:
    hooks = re.findall(r'entry: (.+)', (ROOT / '.pre-commit-config.yaml').read_text())
    ci = (ROOT / '.ci/run').read_text().splitlines()
    linted = {line for line in ci if line.startswith(('ruff', 'mypy'))}
    assert {hook.replace(' --fix', '') for hook in hooks} == {
        line.replace(' --check', '').removesuffix(' .') for line in linted
    }


def test_citation_has_the_version() -> None:
    assert f'version: {beitv2_mm.__version__}\n' in (ROOT / 'CITATION.cff').read_text()


def test_top_of_the_package_holds_three_modules() -> None:
    top = {file.name for file in (ROOT / 'beitv2_mm').glob('*.py')}
    assert top == {'__init__.py', '__main__.py', 'registry.py'}


def test_layers_import_neither_openmmlab_nor_higher_rooms() -> None:
    for file in (ROOT / 'beitv2_mm/layers').glob('*.py'):
        found = re.findall(
            r'^\s*(?:from|import) (mm\w+|beitv2_mm(?:\.\w+)?)', file.read_text(), re.M
        )
        assert set(found) <= {'beitv2_mm.layers'}, file


def test_types_are_shipped() -> None:
    assert (ROOT / 'beitv2_mm/py.typed').exists()
