"""Where a package is not installed, or a version does not fit, messages say what to install."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.transformers_stand_in import write_stand_in

ROOT = Path(__file__).parents[1]
DETECTOR = ROOT / 'configs/detection/beitv2_base_mask_rcnn_8xb2_12e_coco.py'
BLIP = ROOT / 'configs/multimodal/beitv2_base_blip_caption_8xb32_10e_coco.py'
TRAIN = ROOT / 'tools/train.py'
pytestmark = pytest.mark.cpu_only(reason='nothing is computed')
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


@pytest.mark.parametrize(
    'line',
    [
        ['beitv2_mm', 'detect-train', 'boxes', '--from', 'weights', '--out', 'out'],
        [TRAIN, DETECTOR],
    ],
    ids=['detect-train', 'train'],
)
def test_message_names_the_extra_of_detectors(line: list, tmp_path: Path) -> None:
    said = refusal(tmp_path, '-c', HIDDEN, *line)
    assert "No module named 'mmdet'" in said
    assert said.endswith('pip install "beitv2_mm[det]"')


def test_message_names_the_extra_of_texts(tmp_path: Path) -> None:
    write_stand_in(tmp_path, '5.24.0')
    said = refusal(tmp_path, TRAIN, BLIP)
    assert 'BlipCaption of mmpretrain needs transformers < 4.52, here is 5.24.0' in said
    assert said.endswith('pip install "beitv2_mm[vl]"')


def refusal(folder: Path, *arguments: str | Path) -> str:
    """The last line that a process in ``folder``, which may have packages, writes."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, 'PYTHONPATH': f'{folder}{os.pathsep}{ROOT}'},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and 'Traceback' not in done.stderr, done.stderr
    return done.stderr.strip().splitlines()[-1]
