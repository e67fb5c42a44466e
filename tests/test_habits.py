"""What a contributor relies on: the commit hooks are what CI lints, the version stands once."""

import ast
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


def test_rooms_import_only_those_below_them() -> None:
    page = (ROOT / 'docs/reference/architecture.md').read_text()
    order = re.search(r'```\n(compat, .*)\n```', page)[1].split(', ')
    rooms = {path.parent.name for path in (ROOT / 'beitv2_mm').glob('*/__init__.py')}
    assert set(order) == rooms
    climbs = set()
    for file in (ROOT / 'beitv2_mm').glob('*/**/*.py'):
        name = str(file.relative_to(ROOT / 'beitv2_mm'))
        for node in ast.walk(ast.parse(file.read_text())):
            module = node.module if isinstance(node, ast.ImportFrom) else ''
            room = (module or '').removeprefix('beitv2_mm.').split('.')[0]
            if room in rooms and order.index(room) > order.index(name.split('/')[0]):
                climbs.add((name, room))
    # mmpretrain asks for the models of this package, and is answered when it asks.
    assert climbs == {('compat/mmpretrain_.py', 'apis')}


def test_the_tour_of_the_code_names_what_is_there() -> None:
    """Every class, and its method, in a step is defined in a file that the step names."""
    text = (ROOT / 'docs/reference/how_the_code_works.md').read_text()
    files = re.findall(r'`(\w+/[\w/]+\.py)`', text)
    assert all((ROOT / 'beitv2_mm' / file).exists() or file == 'tools/train.py' for file in files)
    checked = 0
    for step in re.split(r'\n\d\. ', text)[1:]:
        places = [ROOT / 'beitv2_mm' / file for file in re.findall(r'`(\w+/[\w/]+\.py)`', step)]
        code = '\n'.join(place.read_text() for place in places if place.exists())
        for name in re.findall(r'`([A-Z]\w+(?:\.\w+)?)`', step):
            assert all(re.search(rf'(class|def) {part}\b', code) for part in name.split('.')), name
            checked += 1
    assert checked >= 6


def test_ci_runs_tests_that_are_there() -> None:
    names = re.findall(r'\btests/[\w/.]+', (ROOT / '.ci/versions').read_text())
    missing = [name for name in names if not list(ROOT.glob(f'{name}*'))]
    assert len(names) > 4 and not missing


def test_types_are_shipped() -> None:
    assert (ROOT / 'beitv2_mm/py.typed').exists()
