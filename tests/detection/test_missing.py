"""Where mmdet is not installed, the messages say what to install."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / 'configs/detection/beitv2_base_mask_rcnn_8xb2_12e_coco.py'
HIDDEN = """
import runpy, sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.startswith('mmdet') else find(name, *rest)
sys.argv = sys.argv[1:]
if sys.argv[0].endswith('.py'):
    runpy.run_path(sys.argv[0], run_name='__main__')
else:
    runpy.run_module(sys.argv[0], run_name='__main__')
"""


@pytest.mark.cpu_only(reason='nothing is computed')
@pytest.mark.parametrize(
    'line',
    [
        ['beitv2_mm', 'detect-train', 'boxes', '--from', 'weights', '--out', 'out'],
        [ROOT / 'tools/train.py', RECIPE],
    ],
    ids=['detect-train', 'train'],
)
def test_message_names_the_extra(line: list, tmp_path: Path) -> None:
    command = [sys.executable, '-c', HIDDEN, *line]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    said = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert "No module named 'mmdet'" in said
    assert said.endswith('pip install "beitv2_mm[det]"')
