"""The documentation: it builds, its links lead somewhere, what it names exists."""

import ast
import inspect
import re
import shutil
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS

import beitv2_mm
from support.markdown import ROOT, anchors, blocks, headings, links, pages
from support.option_keys import is_known, parameters

pytestmark = pytest.mark.cpu_only(reason='pages, nothing is computed')

README, CHINESE = ROOT / 'README.md', ROOT / 'README_zh-CN.md'
OFFICIAL = ROOT / 'docs/migration/official.md'
PYTHON = [(page, code) for page in pages() for code in blocks(page, 'python')]


@pytest.mark.skipif(find_spec('sphinx') is None, reason='needs the extra docs')
def test_builds_without_warnings(tmp_path: Path) -> None:
    command = [sys.executable, '-m', 'sphinx', '-W', '-q', ROOT / 'docs', tmp_path]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    api = (tmp_path / 'reference/api/models.html').read_text()
    assert 'beitv2_mm.models.BEiTV2Backbone' in api and 'out_indices' in api
    assert 'beitv2_base_16xb128_300e_in1k' in (tmp_path / 'recipes/pretrain.html').read_text()


@pytest.mark.parametrize('page', pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if '://' in link or link.startswith('mailto:'):
            continue
        path, _, anchor = link.partition('#')
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f'{page}: no file {link}'
        assert target.is_relative_to(ROOT), f'{page}: {link} leaves the repository'
        if anchor:
            assert anchor in anchors(target), f'{page}: no heading for {link}'


def test_checker_finds_broken_links(tmp_path: Path) -> None:
    page = tmp_path / 'page.md'
    page.write_text('# A `b` c\n\n[x](gone.md) ![y](y.png)\n\n```bash\n[z](z.md)  # no link\n```\n')
    assert links(page) == ['gone.md', 'y.png'] and anchors(page) == {'a-b-c'}


def test_readmes_are_equal() -> None:
    """Same headings by level, the same commands and code, the same links and tables."""
    levels = [[h.split()[0] for h in headings(page)] for page in (README, CHINESE)]
    assert levels[0] == levels[1]
    for language in ('bash', 'python', 'bibtex'):
        assert blocks(README, language) == blocks(CHINESE, language)
    assert links(README)[1:] == links(CHINESE)[1:]  # the first leads to the other language
    rows = [re.findall(r'^\|', page.read_text('utf-8'), re.M) for page in (README, CHINESE)]
    assert len(rows[0]) == len(rows[1])
    figures = [re.findall(r'\d+\.\d+', page.read_text('utf-8')) for page in (README, CHINESE)]
    assert sorted(figures[0]) == sorted(figures[1])


@pytest.mark.parametrize('page', pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_published_models_named_are_listed(page: Path) -> None:
    named = re.findall(r'\bbeitv2_(?:base|large)_patch16_224_pt1k\w*', page.read_text('utf-8'))
    assert set(named) <= set(beitv2_mm.list_models())


def test_migration_names_keys_that_exist() -> None:
    sections = re.split(r'<!-- config: (\S+) -->', OFFICIAL.read_text())
    checked = 0
    for path, text in zip(sections[1::2], sections[2::2], strict=True):
        config = Config.fromfile(ROOT / path)
        for row in re.findall(r'^\| `--.*$', text.split('\n## ')[0], re.M):
            for key in re.findall(r'`([a-z_]+(?:\.\w+)+|[a-z]+_[a-z_]+)`', row.split('|')[2]):
                in_pipeline = f' of `{"BlockwiseMask"}`' in row or 'of the same' in row
                assert is_known(config, key) or in_pipeline or 'RandomResizedCrop' in row, row
                checked += 1
    assert checked > 60


def test_a_key_nobody_reads_is_found() -> None:
    config = Config.fromfile(ROOT / 'configs/pretrain/beitv2_base_16xb128_300e_in1k.py')
    for key in ('model.backbone.with_cp', 'optim_wrapper.accumulative_counts', 'load_from'):
        assert is_known(config, key)
    for key in ('model.backbone.with_ckpt', 'optim_wrapper.accumulate', 'param_scheduler.max_lr'):
        assert not is_known(config, key)


@pytest.mark.parametrize(
    ('page', 'code'), PYTHON, ids=[f'{p.relative_to(ROOT)}-{i}' for i, (p, _) in enumerate(PYTHON)]
)
def test_python_names_what_exists(page: Path, code: str, tmp_path: Path) -> None:
    """Imports, keyword arguments and registered types; a config is loaded."""
    if 'read_base' in code:
        copy = tmp_path / 'configs'
        shutil.copytree(ROOT / 'configs', copy)
        (copy / 'classification/mine.py').write_text(code)
        assert Config.fromfile(copy / 'classification/mine.py').model
        return
    names: dict[str, object] = {'beitv2_mm': beitv2_mm}
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = import_module(node.module or '')
            names |= {alias.name: getattr(module, alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            for alias in node.names:
                import_module(alias.name)
        elif isinstance(node, ast.Attribute) and getattr(node.value, 'id', '') == 'beitv2_mm':
            assert hasattr(beitv2_mm, node.attr), node.attr
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        given = {word.arg: word.value for word in call.keywords if word.arg}
        kind = names.get(getattr(call.func, 'id', ''))
        typed = given.get('type')
        if isinstance(typed, ast.Constant) and typed.value.startswith('beitv2_mm.'):
            kind = MODELS.get(typed.value)
            assert kind is not None, typed.value
            given.pop('type')
            given.pop('_delete_', None)  # mmengine's, in place of the base's settings
        if kind is not None:
            accepted = parameters(kind)
            hands_on = any(
                p.kind is p.VAR_KEYWORD for p in inspect.signature(kind).parameters.values()
            )
            assert set(given) <= accepted or hands_on, ast.unparse(call)
