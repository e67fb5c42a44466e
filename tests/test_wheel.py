"""What an installed package holds: configs, tools and model index under beitv2_mm/.mim."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.cpu_only(reason='settings and sizes, nothing is computed')

ROOT = Path(__file__).parent.parent
MIM = 'beitv2_mm/.mim/'


@pytest.fixture(scope='module')
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy to build in, with what an earlier build left behind."""
    tracked = ('beitv2_mm', 'configs', 'tools', 'setup.py', 'pyproject.toml', 'MANIFEST.in')
    copy = tmp_path_factory.mktemp('source')
    for name in (*tracked, 'model-index.yml', 'README.md', 'LICENSE'):
        ignore = shutil.ignore_patterns('__pycache__', '.mim')
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, copy / name)
    (copy / 'build/lib' / MIM / 'configs').mkdir(parents=True)
    (copy / 'build/lib' / MIM / 'configs/deleted.py').touch()
    return copy


def pip(*arguments: object) -> None:
    command = [sys.executable, '-m', 'pip', *map(str, arguments), '--no-deps', '--quiet']
    command += ['--no-build-isolation', '--disable-pip-version-check']
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_wheel_holds_configs_tools_and_index(source: Path, tmp_path: Path) -> None:
    pip('wheel', source, '--wheel-dir', tmp_path)
    (wheel,) = tmp_path.glob('*.whl')
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    expected = {
        MIM + str(path.relative_to(ROOT))
        for folder in ('configs', 'tools')
        for path in (ROOT / folder).rglob('*')
        if path.is_file() and '__pycache__' not in path.parts
    }
    assert {name for name in names if name.startswith(MIM)} == {
        *expected,
        f'{MIM}model-index.yml',
    }
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / 'beitv2_mm').rglob('*.py')}
    assert 'beitv2_mm/visualization/attention_page.html' in names
    assert modules <= {*names, *expected, *(n for n in modules if '.mim' in n)}
    assert not [n for n in names if not n.startswith(('beitv2_mm/', 'beitv2_mm-'))]


def test_an_editable_install_links_them(source: Path, tmp_path: Path) -> None:
    pip('install', '--editable', source, '--target', tmp_path)
    mim = source / MIM
    assert {path.name for path in mim.iterdir()} == {'configs', 'tools', 'model-index.yml'}
    config = mim / 'configs/_base_/mim.py'
    assert config.resolve() == (source / 'configs/_base_/mim.py').resolve()
    pip('install', '--editable', source, '--target', tmp_path, '--upgrade')  # once more
    assert config.is_file()
    # a path entry or a finder, as setuptools likes
    links = [*tmp_path.glob('*.pth'), *tmp_path.glob('__editable__*.py')]
    assert any(str(source) in link.read_text() for link in links)
