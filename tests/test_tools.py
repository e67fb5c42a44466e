"""tools/train.py and tools/test.py, run as a user runs them, on the toys of toy.py."""

import logging
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import mmengine
import pytest
import torch
from mmengine.config import Config

from beitv2_mm.engine import resume, switches
from support.terminal import Terminal
from support.tools import Tool, free_port, imports_done

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / 'tests/support/toy_config.py'
ENV = os.environ | {
    'PYTHONPATH': os.pathsep.join([str(ROOT / 'tests'), str(ROOT), os.getenv('PYTHONPATH', '')]),
    'PATH': os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']]),
}


def start(*command: object, cwd: Path, fresh: bool = False, **env: str) -> subprocess.Popen[str]:
    """Starts a program; Python, unless it has to be ``fresh``, with its imports done."""
    own = command[0] == sys.executable and not fresh
    return subprocess.Popen(
        [*map(str, command)],
        env=ENV | env,
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=imports_done([*command], ENV | env) if own else None,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a process that must succeed; its output."""
    output = process.communicate(timeout=180)[0]
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Work directory of two uninterrupted epochs, started from elsewhere with default options."""
    cwd = tmp_path_factory.mktemp('trained')
    finish(start(sys.executable, ROOT / 'tools/train.py', CONFIG, cwd=cwd, fresh=True))
    return cwd / 'work_dirs/toy_config'


def assert_same_weights(left: Path, right: Path) -> None:
    ours, theirs = (torch.load(file, weights_only=True)['state_dict'] for file in (left, right))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


@pytest.mark.forks(reason='it runs in processes of its own')
def test_killed_in_mid_epoch_resumes_to_the_same_weights(trained: Path, tmp_path: Path) -> None:
    command = [sys.executable, ROOT / 'tools/train.py', CONFIG, '--work-dir']
    options = ['--cfg-options', 'train_cfg.val_interval=9', 'default_hooks.logger.interval=1']
    process = start(*command, tmp_path / 'work', *options, cwd=tmp_path, TOY_DELAY='0.1')
    assert process.stdout is not None
    assert any('Epoch(train) [2][2/8]' in line for line in process.stdout)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / 'work/epoch_2.pth').exists()

    moved = (tmp_path / 'work').rename(tmp_path / 'moved')  # last_checkpoint holds the old path
    log = finish(start(*command, moved, '--resume', cwd=tmp_path))
    assert 'resumed epoch: 1, iter: 8' in log
    assert_same_weights(moved / 'epoch_2.pth', trained / 'epoch_2.pth')


@pytest.mark.forks(reason='it runs in processes of its own')
@pytest.mark.parametrize('twice', [False, True])
def test_ctrl_c_saves_and_a_second_one_ends_at_once(
    trained: Path, tmp_path: Path, twice: bool
) -> None:
    """On a terminal, which sends it to the workers of the loader, too."""
    command = [sys.executable, ROOT / 'tools/train.py', CONFIG, '--work-dir', 'work']
    options = ['--cfg-options', 'default_hooks.logger.interval=1', 'train_dataloader.num_workers=1']
    terminal = Terminal([*command, *options], tmp_path, ENV | {'TOY_DELAY': '2' if twice else '.2'})
    terminal.wait_for('Epoch(train) [1][1/8]' if twice else 'Epoch(train) [1][3/8]')
    time.sleep(0.5)  # in the middle of a step
    terminal.press_ctrl_c()
    if twice:
        terminal.wait_for('A second Ctrl-C ends at once')
        time.sleep(1)
        terminal.press_ctrl_c()
        assert terminal.finish(5) == -signal.SIGINT
        return
    assert terminal.finish(20) == 130, terminal.output
    (saved,) = tmp_path.glob('work/iter_*.pth')
    assert f'it continues from {saved.name} with --resume' in terminal.output
    assert 'Traceback' not in terminal.output
    log = finish(start(*command, '--resume', cwd=tmp_path))
    assert f'iter: {saved.stem.removeprefix("iter_")}' in log
    assert_same_weights(tmp_path / 'work/epoch_2.pth', trained / 'epoch_2.pth')


def test_resume_from_a_checkpoint_given(trained: Path, tool: Tool) -> None:
    tool('train', CONFIG, '--resume', trained / 'epoch_1.pth', '--work-dir', 'given')
    assert not Path('given/epoch_1.pth').exists()
    assert_same_weights(Path('given/epoch_2.pth'), trained / 'epoch_2.pth')


def test_resume_without_checkpoint_starts_anew(
    trained: Path, tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(switches, 'print_log', lambda message, logger: said.append(message))
    tool('train', CONFIG, '--resume')
    assert said == ['no checkpoint in work_dirs/toy_config yet: a new training starts']
    assert_same_weights(Path('work_dirs/toy_config/epoch_2.pth'), trained / 'epoch_2.pth')


def test_an_empty_pointer_counts_as_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple] = []
    monkeypatch.setattr(resume, 'print_log', lambda *args: said.append(args))
    (tmp_path / 'last_checkpoint').write_text('\n')
    cfg = Config(dict(work_dir=str(tmp_path), load_from='start.pth'))
    switches.set_resume(cfg, 'auto')
    assert (cfg.resume, cfg.load_from) == (False, 'start.pth')
    assert 'last_checkpoint is empty' in said[0][0] and said[0][2] == logging.WARNING


def test_several_nodes_have_to_say_who_they_are(tmp_path: Path) -> None:
    for tool, arguments in (('train', ['c.py', '2']), ('test', ['c.py', 'x.pth', '2'])):
        process = start(
            'bash', ROOT / f'tools/dist_{tool}.sh', *arguments, cwd=tmp_path, NNODES='2'
        )
        assert 'NODE_RANK: is not set' in process.communicate()[0] and process.returncode


def test_the_terminal_is_quiet_and_the_log_file_is_not(
    tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    bulk = ['Config:', 'System environment', 'Hooks will be executed', '"FileClient" will be']
    tool('train', CONFIG)
    shown = capsys.readouterr().out
    assert shown.index('Epoch(train) [1]') and len(shown.splitlines()) < 25
    assert not [text for text in bulk if text in shown]
    (log,) = Path('work_dirs/toy_config').glob('*/*.log')
    assert not [text for text in bulk if text not in log.read_text()]
    assert Config.fromfile('work_dirs/toy_config/toy_config.py').train_cfg.max_epochs == 2
    tool('train', CONFIG, '--verbose')
    shown = capsys.readouterr().out
    assert not [text for text in bulk if text not in shown]


@pytest.mark.forks(reason='it runs in processes of its own')
def test_mmpretrain_tool_trains_the_same(trained: Path, tmp_path: Path) -> None:
    spec = find_spec('mmpretrain')
    assert spec is not None
    assert spec.origin is not None
    train = Path(spec.origin).parent / '.mim/tools/train.py'
    finish(start(sys.executable, train, CONFIG, '--work-dir', tmp_path, cwd=tmp_path))
    assert_same_weights(tmp_path / 'epoch_2.pth', trained / 'epoch_2.pth')


@pytest.mark.cpu_only(reason='two processes over gloo')
def test_two_processes_train_and_test_over_gloo(trained: Path, tmp_path: Path) -> None:
    """The config says nccl. Two halves of a batch give the gradient of the whole batch."""
    port = free_port()
    command = ['bash', ROOT / 'tools/dist_train.sh', CONFIG, 2, '--work-dir', tmp_path]
    one = ['--cfg-options', 'train_dataloader.batch_size=1']
    log = finish(start(*command, *one, cwd=tmp_path, PORT=port))
    assert 'backend gloo instead of nccl' in log
    halves, whole = (
        torch.load(folder / 'epoch_2.pth', weights_only=True) for folder in (tmp_path, trained)
    )
    assert halves['meta']['iter'] == whole['meta']['iter'] == 16
    for name, value in halves['state_dict'].items():
        torch.testing.assert_close(value, whole['state_dict'][name])

    command = ['bash', ROOT / 'tools/dist_test.sh', CONFIG, tmp_path / 'epoch_2.pth', 2]
    finish(start(*command, '--out', 'metrics.json', cwd=tmp_path, PORT=port))
    assert mmengine.load(tmp_path / 'metrics.json').keys() == {'accuracy'}


@pytest.mark.cpu_only(reason='a process over gloo')
@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='threads are read from /proc')
def test_no_thread_of_gloo_is_left_when_a_tool_ends(trained: Path, tmp_path: Path) -> None:
    """One at work while Python exits aborts the process now and then, after a complete run."""
    for tool, *options in (
        ['train', '--work-dir', tmp_path],
        ['test', trained / 'epoch_2.pth', '--work-dir', tmp_path],
    ):
        world = dict(RANK='0', LOCAL_RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1')
        world['MASTER_PORT'] = free_port()
        words = map(str, (ROOT / f'tools/{tool}.py', CONFIG, *options, '--launcher', 'pytorch'))
        program = (
            'import runpy, sys; from pathlib import Path\n'
            f'sys.argv = {[*words]}\n'
            "runpy.run_path(sys.argv[0], run_name='__main__')\n"
            "names = [file.read_text() for file in Path('/proc/self/task').glob('*/comm')]\n"
            "assert not [name for name in names if 'gloo' in name], names\n"
        )
        log = finish(start(sys.executable, '-c', program, cwd=tmp_path, **world))
        assert 'backend gloo instead of nccl' in log


def test_test_writes_metrics_and_predictions(trained: Path, tool: Tool) -> None:
    tool('test', CONFIG, trained / 'epoch_2.pth', '--out', 'metrics.json')
    tool('test', CONFIG, trained / 'epoch_2.pth', '--out', 'predictions.pkl')
    right = [sample['pred'] == sample['label'] for sample in mmengine.load('predictions.pkl')]
    assert mmengine.load('metrics.json') == {'accuracy': sum(right).item() / 16}


def test_auto_scale_lr(tool: Tool) -> None:
    options = ['train_cfg.max_epochs=1', 'train_dataloader.batch_size=8', 'param_scheduler=None']
    tool('train', CONFIG, '--auto-scale-lr', '--cfg-options', *options, '--work-dir', 'w')
    optimizer = torch.load('w/epoch_1.pth', weights_only=True)['optimizer']
    assert optimizer['param_groups'][0]['lr'] == pytest.approx(0.04)


def test_no_workers_beside_persistent_ones(tool: Tool, tmp_path: Path) -> None:
    """A config with persistent workers runs with num_workers=0 said alone."""
    option = 'train_dataloader.persistent_workers=True'
    tool('train', CONFIG, '--work-dir', tmp_path / 'run', '--cfg-options', option)
    assert (tmp_path / 'run/epoch_2.pth').exists()
