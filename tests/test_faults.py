"""The short run of support/fault_run.py: one fault of each kind; `--kills 20` is the long one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cpu_only(reason='several processes over gloo')

ROOT = Path(__file__).parents[1]
PLAN = ['kill', 'disk', 'kill_writing', 'truncate', 'term']


def test_a_run_with_faults_ends_like_one_without(tmp_path: Path) -> None:
    code = 'import pathlib, sys; from support import fault_run; '
    code += 'fault_run.run(pathlib.Path(sys.argv[1]), sys.argv[2:], epochs=30)'
    path = os.pathsep.join([str(ROOT / 'tests'), str(ROOT), os.getenv('PYTHONPATH', '')])
    done = subprocess.run(
        [sys.executable, '-c', code, tmp_path / 'out', *PLAN],
        env=os.environ | {'PYTHONPATH': path},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((tmp_path / 'out/result.json').read_text())
    assert [fault['fault'] for fault in result['faults']] == PLAN and not result['error']
    assert result['faults'][1]['last_good_intact']
    assert result['disk'] in ('tmpfs', 'RLIMIT_FSIZE')
    assert result['lives'] == 5
    assert result['lost_checkpoints'] == []
    assert result['losses_that_differ'] == 0
    assert result['differences'] == []
