"""Command lines before they import anything heavy: --help, choices, threads, devices."""

import argparse
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from beitv2_mm import benchmark, checkpoint
from beitv2_mm.apis import export
from beitv2_mm.jobs import command_line as options
from beitv2_mm.layers.arch import ARCHS

pytestmark = pytest.mark.not_pretended(reason='nothing is computed')

ROOT = Path(__file__).parents[2]
TOOLS = sorted(ROOT.glob('tools/*.py'))
HEAVY = ('torch', 'mmengine', 'numpy', 'timm', 'mmpretrain', 'matplotlib', 'rich')
HELP = f"""
import runpy, sys
sys.argv[1:] = ['--help']
try:
    {{}}
finally:
    print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""


@pytest.mark.parametrize('tool', [*TOOLS, '-m'], ids=lambda tool: getattr(tool, 'stem', tool))
def test_help_imports_nothing_heavy(tool: Path | str) -> None:
    start = f'runpy.run_path({str(tool)!r}, run_name="__main__")'
    if tool == '-m':
        start = 'runpy.run_module("beitv2_mm", run_name="__main__")'
    command = [sys.executable, '-c', HELP.format(start)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert 'usage:' in done.stdout and done.stderr == '[]\n'


def test_choices_are_those_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, list] = {}

    def note(self: argparse.ArgumentParser, *args: object) -> None:
        for action in self._actions:
            if action.choices is not None:
                found.setdefault(action.dest, list(action.choices))
        raise SystemExit

    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', note)
    for name in ('convert_checkpoint', 'export_model', 'benchmark'):
        with pytest.raises(SystemExit):
            runpy.run_path(str(ROOT / f'tools/{name}.py'), run_name='__main__')
    assert found['to'] == list(checkpoint.FORMATS)
    assert found['task'] == list(export.TASKS)
    assert found['suite'] == list(benchmark.SUITES)
    assert found['arch'] == list(ARCHS)


@pytest.mark.parametrize(
    ('own', 'expected'),
    [
        ({}, 'PASSIVE 10000'),
        ({'OMP_WAIT_POLICY': 'ACTIVE'}, 'ACTIVE None'),
        ({'GOMP_SPINCOUNT': '5'}, 'None 5'),
    ],
)
def test_threads_of_a_training_soon_sleep(own: dict[str, str], expected: str) -> None:
    """The environment when PyTorch, and libgomp with it, is looked for."""
    names = ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT')
    code = (
        'import os, sys\nfrom importlib.abc import MetaPathFinder\n'
        f'NAMES = {names}\n'
        'class Look(MetaPathFinder):\n'
        '    def find_spec(self, name, path, target=None):\n'
        "        if name == 'torch': sys.exit(' '.join(map(str, map(os.environ.get, NAMES))))\n"
        'sys.meta_path.insert(0, Look())\nimport runpy\n'
        "sys.argv[1:] = ['no_config.py']\n"
        f'runpy.run_path({str(ROOT / "tools/train.py")!r}, run_name="__main__")'
    )
    env = {name: value for name, value in os.environ.items() if name not in names} | own
    done = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True)
    assert done.stderr.strip() == expected


def test_devices() -> None:
    assert str(options.device('auto')) in ('cpu', 'cuda')
    with pytest.raises(argparse.ArgumentTypeError, match="'nowhere' cannot be used here"):
        options.device('nowhere')


@pytest.mark.parametrize('first', ['beitv2_mm', 'mmengine', 'importlib.util'])
def test_the_fixes_are_there_whatever_is_imported_first(first: str) -> None:
    """Also where somebody has only looked whether mmengine is there."""
    code = (
        f'import {first}, beitv2_mm, sys\nfrom importlib.util import find_spec\n'
        "find_spec('mmengine')\nimport mmengine.runner\n"
        "assert sys.modules['beitv2_mm.compat'].active()\n"
        'from mmengine.runner.checkpoint import CheckpointLoader\n'
        "assert hasattr(CheckpointLoader.load_checkpoint, '__wrapped__')"
    )
    subprocess.run([sys.executable, '-c', code], check=True)


def test_the_fixes_are_there_with_pytorch_alone() -> None:
    code = (
        'import beitv2_mm, torch, sys\n'
        "assert 'resume_weights_only' in sys.modules['beitv2_mm.compat'].active()"
    )
    subprocess.run([sys.executable, '-c', code], check=True)
