"""Stages: skipped when done, continued, run again when settings change; training processes."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from beitv2_mm.engine.hooks.progress import PROGRESS
from beitv2_mm.jobs.stages import (
    Metrics,
    Stage,
    StageError,
    Stages,
    artifact,
)
from beitv2_mm.jobs.training import train
from support.terminal import Terminal
from support.tools import imports_done

pytestmark = pytest.mark.forks(reason='it runs in processes of its own')

LOGGER = logging.getLogger('test_stages')


class Job:
    """Counts the runs of two stages, the second after the first."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.runs: list[str] = []
        self.fail = ''

    def run(self, first: object = 1, second: object = 1, restart: bool = False) -> list[str]:
        self.runs = []
        stages = Stages(self.out, LOGGER)
        plan = [
            Stage('first', {'value': first}, self.action),
            Stage('second', {'value': second}, self.action, ['first']),
        ]
        if restart:
            for stage in plan:
                stages.forget(stage.name)
        for stage in plan:
            assert stages.run(stage).metrics == {'x': 1.0}
        return self.runs

    def action(self, folder: Path) -> Metrics:
        self.runs.append(folder.name + ('+' if (folder / 'half').exists() else ''))
        (folder / 'half').touch()
        if self.fail == folder.name:
            raise KeyboardInterrupt
        return {'x': 1.0}


def test_done_stages_are_skipped(tmp_path: Path) -> None:
    job = Job(tmp_path)
    assert job.run() == ['first', 'second']
    assert job.run() == []
    assert job.run(restart=True) == ['first', 'second']


def test_changed_settings_rerun_the_stage_and_those_after_it(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.run()
    assert job.run(second=2) == ['second']
    assert job.run(first=2, second=2) == ['first', 'second']


def test_interrupted_stage_continues_and_time_adds_up(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.fail = 'second'
    with pytest.raises(KeyboardInterrupt):
        job.run()
    assert not (tmp_path / 'second/done.json').exists()
    started = json.loads((tmp_path / 'second/started.json').read_text())
    (tmp_path / 'second/started.json').write_text(json.dumps({**started, 'seconds': 1000.0}))
    job.fail = ''
    assert job.run() == ['second+']  # finds what it left
    assert json.loads((tmp_path / 'second/done.json').read_text())['seconds'] > 1000


def test_interrupted_stage_with_other_settings_starts_anew(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.fail = 'second'
    with pytest.raises(KeyboardInterrupt):
        job.run()
    job.fail = ''
    assert job.run(second=2) == ['second']


def test_foreign_folders_are_not_deleted(tmp_path: Path) -> None:
    (tmp_path / 'first').mkdir()
    (tmp_path / 'first/thesis.tex').touch()
    with pytest.raises(ValueError, match='was not made by this program'):
        Job(tmp_path).run()
    assert (tmp_path / 'first/thesis.tex').exists()


def test_artifact_survives_a_moved_folder(tmp_path: Path) -> None:
    (tmp_path / 'iter_9.pth').touch()
    (tmp_path / 'last_checkpoint').write_text('/elsewhere/iter_9.pth')
    assert artifact(tmp_path) == tmp_path / 'iter_9.pth'
    (tmp_path / 'iter_9.pth').unlink()
    with pytest.raises(StageError, match='lost its checkpoint'):
        artifact(tmp_path)


def test_remaining_time_of_all_stages(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('beitv2_mm.jobs.training.SETTLES', 0.0)
    state = dict(mode='train', step=1, total=9, seconds_left=600)
    code = f'import time; open({str(tmp_path / PROGRESS)!r}, "w").write({json.dumps(state)!r})\n'
    with caplog.at_level('INFO', 'test_stages'):
        train(['-c', code + 'time.sleep(2)'], tmp_path, LOGGER, later=2.0)
    assert caplog.text.count('done in 10 min 00 s at this speed, all stages in 30 min') == 1


def test_training_runs_a_config_and_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join([str(root), str(root / 'tests')]))
    command: list[str | Path] = [root / 'tools/train.py', root / 'tests/support/toy_config.py']
    train([*command, '--work-dir', tmp_path], tmp_path, LOGGER)
    assert 'Epoch(val) [2][8/8]' in (tmp_path / 'log').read_text()
    assert artifact(tmp_path).name == 'epoch_2.pth'


def test_failed_training_shows_the_end_of_its_log(tmp_path: Path) -> None:
    code = "import sys; print('why it failed'); sys.exit(3)"
    with pytest.raises(StageError, match=r'(?s)exit status 3.*why it failed'):
        train(['-c', code], tmp_path, LOGGER)


def test_training_has_its_environment(tmp_path: Path) -> None:
    code = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'], 'PATH' in os.environ)"
    train(['-c', code], tmp_path, LOGGER, environment={'CUDA_VISIBLE_DEVICES': 'none'})
    assert (tmp_path / 'log').read_text() == 'none True\n'


@pytest.mark.parametrize(('stubborn', 'together'), [(False, False), (True, False), (False, True)])
def test_interruption_ends_the_child(tmp_path: Path, stubborn: bool, together: bool) -> None:
    """Ctrl-C on the driver: the training process is gone before the driver is."""
    child = 'import os, signal, time\n'
    if stubborn:
        child += 'signal.signal(signal.SIGTERM, signal.SIG_IGN)\n'
    child += "open('pid', 'w').write(str(os.getpid()))\ntime.sleep(60)\n"
    driver = (
        'import logging, sys; from pathlib import Path\n'
        'from beitv2_mm.jobs import stages, training\n'
        'end = training._end; training._end = lambda child: end(child, patience=0.5)\n'
        'def act(folder):\n'
        '    training.train(["-c", sys.argv[1]], Path("."), logging.getLogger())\n'
    )
    if together:
        driver += (
            'job = stages.Stage("a", {}, act)\n'
            'stages.Stages(Path("."), logging.getLogger()).run_together([job], 2)\n'
        )
    else:
        driver += 'act(None)\n'
    root = Path(__file__).parents[2]
    command = [sys.executable, '-c', driver, child]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
        preexec_fn=imports_done(command, {**os.environ, 'PYTHONPATH': str(root)}),
    )
    pid_file = tmp_path / 'pid'
    deadline = time.monotonic() + 60
    while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    pid = int(pid_file.read_text())
    process.send_signal(signal.SIGINT)
    assert process.wait(20) != 0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


DRIVER = """
import logging, sys
from pathlib import Path
from beitv2_mm.jobs import stages, training
logging.basicConfig(format='%(message)s', level='INFO')
root, log = Path(sys.argv[1]), logging.getLogger()
command = [root / 'tools/train.py', root / 'tests/support/toy_config.py', '--work-dir', 'out/toy']
command += ['--resume', 'auto', '--cfg-options', 'default_hooks.logger.interval=1']
command += ['train_dataloader.num_workers=1']
def act(folder):
    training.train(command, folder, log)
    return {}
runner = stages.Stages(Path('out'), log)
job = stages.Stage('toy', {}, act)
runner.run_together([job], 1) if sys.argv[2:] else runner.run(job)
"""


@pytest.mark.parametrize('together', [False, True])
def test_ctrl_c_on_a_terminal_saves_the_step_and_continues(tmp_path: Path, together: bool) -> None:
    """A job and its training, twice: interrupted in mid-epoch, then continued to the end."""
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root), str(root / 'tests')])
    command = [sys.executable, '-c', DRIVER, root, *(['together'] if together else [])]
    env = {**os.environ, 'PYTHONPATH': path, 'TERM': 'dumb', 'COLUMNS': '200'}
    terminal = Terminal(command, tmp_path, {**env, 'TOY_DELAY': '0.2'})
    log = tmp_path / 'out/toy/log'
    deadline = time.monotonic() + 60
    while not (log.exists() and '[2/8]' in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    terminal.press_ctrl_c()
    assert terminal.finish() != 0
    (saved,) = (tmp_path / 'out/toy').glob('iter_*.pth')
    assert f'toy: continues from {saved.name}' in terminal.output
    again = Terminal(command, tmp_path, env)
    assert again.finish() == 0, again.output
    assert f'toy: continues from {saved.name}' in again.output
    assert f'iter: {saved.stem.removeprefix("iter_")}' in log.read_text()
    assert artifact(tmp_path / 'out/toy').name == 'epoch_2.pth'


@pytest.mark.parametrize('together', [False, True])
def test_a_second_ctrl_c_does_not_wait(tmp_path: Path, together: bool) -> None:
    root = Path(__file__).parents[2]
    (tmp_path / 'stubborn.py').write_text(
        'import os, pathlib, signal, time\n'
        'signal.signal(signal.SIGTERM, signal.SIG_IGN)\n'
        "pathlib.Path('ready').write_text(str(os.getpid()))\n"
        'time.sleep(60)\n'
    )
    driver = (
        'import logging, sys; from pathlib import Path\n'
        'from beitv2_mm.jobs import stages, training\n'
        'logging.basicConfig(format="%(message)s", level="INFO")\n'
        'act = lambda f: training.train(["stubborn.py"], Path("."), logging.getLogger())\n'
        'job = stages.Stage("a", {}, act)\n'
        'runner = stages.Stages(Path("."), logging.getLogger())\n'
        'runner.run_together([job], 1) if sys.argv[1:] else runner.run(job)\n'
    )
    command = [sys.executable, '-c', driver, *(['together'] if together else [])]
    terminal = Terminal(command, tmp_path, {**os.environ, 'PYTHONPATH': str(root)})
    deadline = time.monotonic() + 60
    ready = tmp_path / 'ready'
    while not (ready.exists() and ready.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    terminal.press_ctrl_c()
    terminal.wait_for('a second Ctrl-C ends it at once')
    terminal.press_ctrl_c()
    assert terminal.finish(15) != 0
    assert 'saved nothing: starts again' in terminal.output
    with pytest.raises(ProcessLookupError):
        os.kill(int(ready.read_text()), 0)


def test_independent_stages_run_together(tmp_path: Path) -> None:
    """Both wait for each other's file, so neither ends unless both run at once."""
    code = (
        'import pathlib, sys, time\n'
        'me, other = sys.argv[1:]\n'
        'pathlib.Path(me).touch()\n'
        'while not pathlib.Path(other).exists(): time.sleep(0.05)\n'
    )

    def stage(name: str, other: str) -> Stage:
        def action(folder: Path) -> dict[str, float]:
            train(['-c', code, tmp_path / name, tmp_path / other], folder, LOGGER)
            return {'value': 1.0}

        return Stage(name, {}, action)

    stages = Stages(tmp_path / 'out', LOGGER)
    stages.run_together([stage('a', 'b'), stage('b', 'a')], 2)
    assert set(stages.results) == {'a', 'b'}
