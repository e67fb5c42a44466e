"""When checkpoints are written and removed, after a full disk and signals too, and resumed from."""

import errno
import os
import signal
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from beitv2_mm.checkpoint import CheckpointError
from beitv2_mm.checkpoint import atomic as files
from beitv2_mm.engine import AtomicCheckpointHook, ResumableEpochBasedTrainLoop
from beitv2_mm.engine.errors import CheckpointWriteError
from beitv2_mm.engine.hooks import checkpoint as module
from beitv2_mm.engine.resume import intact, latest_checkpoint
from support.toy import ToyAccuracy, ToyDataset, ToyModel


def train(folder, hooks=(), epochs=2, runner=None, **checkpoint):
    """Trains epochs of 8 iterations and returns the runner."""
    runner = Runner(
        ToyModel(),
        str(folder),
        train_dataloader=DataLoader(ToyDataset(), batch_size=2),
        train_cfg=dict(type=ResumableEpochBasedTrainLoop, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)),
        default_hooks=dict(checkpoint=dict(type=AtomicCheckpointHook, **checkpoint), logger=None),
        custom_hooks=list(hooks),
        experiment_name=f'{folder.parent.name}_{folder.name}',
        log_level='ERROR',
        **(runner or {}),
    )
    said = []
    runner.logger.error = said.append
    runner.logger.warning = said.append
    try:
        runner.train()
    finally:
        runner.said = said
        train.said = said
    return runner


def names(folder):
    return sorted(file.name for file in folder.glob('*.pth'))


def test_the_last_ones_are_kept_and_the_pointer_names_the_newest(tmp_path):
    train(tmp_path, interval=3, by_epoch=False, max_keep_ckpts=2)
    assert names(tmp_path) == ['iter_15.pth', 'iter_16.pth']
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'iter_16.pth')
    assert not [file for file in os.listdir(tmp_path) if file.endswith('.tmp')]
    assert latest_checkpoint(tmp_path) == tmp_path / 'iter_16.pth'


def test_by_time_as_well_as_by_epoch(tmp_path):
    train(tmp_path, interval=1, minutes=0, max_keep_ckpts=3)
    assert names(tmp_path) == ['epoch_2.pth', 'iter_15.pth', 'iter_16.pth']
    state = torch.load(tmp_path / 'iter_15.pth', weights_only=True)
    assert (state['meta']['epoch'], state['meta']['iter']) == (1, 15)
    train(tmp_path / 'seldom', interval=1, minutes=60)
    assert names(tmp_path / 'seldom') == ['epoch_1.pth', 'epoch_2.pth']


def test_a_checkpoint_goes_after_its_successor_has_come(tmp_path, monkeypatch):
    order = []
    write, remove = module.write_atomic, module._remove

    def note_write(path, content):
        write(path, content)
        order.append(f'+{Path(path).name}')

    def note_remove(path):
        remove(path)
        order.append(f'-{path.name}')

    monkeypatch.setattr(module, 'write_atomic', note_write)
    monkeypatch.setattr(module, '_remove', note_remove)
    train(tmp_path, interval=1, max_keep_ckpts=1)
    assert order == [
        '+epoch_1.pth', '+last_checkpoint', '+epoch_2.pth', '+last_checkpoint', '-epoch_1.pth'
    ]  # fmt: skip


class FullDisk(Hook):
    """Makes fsync fail as on a full disk, from one iteration to another."""

    priority = 'HIGHEST'

    def __init__(self, monkeypatch, start, end):
        self.monkeypatch, self.start, self.end = monkeypatch, start, end

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter in (self.start, self.end):  # a write that has begun ends on the other disk
            next(h for h in runner.hooks if isinstance(h, AtomicCheckpointHook))._wait(runner)
        if runner.iter == self.start:
            self.monkeypatch.setattr(files.os, 'fsync', self.fail)
        if runner.iter == self.end:
            self.monkeypatch.undo()

    def fail(self, file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_costs_a_checkpoint_not_the_run(tmp_path, monkeypatch):
    runner = train(
        tmp_path, [FullDisk(monkeypatch, 5, 13)], interval=5, by_epoch=False, max_keep_ckpts=1
    )
    errors = [message for message in runner.said if 'could not be written' in message]
    assert len(errors) == 1 and 'No space left' in errors[0] and 'iter_10.pth' in errors[0]
    assert names(tmp_path) == ['iter_16.pth']  # iter_5 stood until iter_15 did


def test_a_full_disk_ends_the_run_if_it_is_to(tmp_path, monkeypatch):
    with pytest.raises(CheckpointWriteError, match=r'iter_10\.pth.*No space.*good one is .*iter_5'):
        train(tmp_path, [FullDisk(monkeypatch, 5, 99)], interval=5, by_epoch=False, on_error='stop')
    assert names(tmp_path) == ['iter_5.pth'] and intact(tmp_path / 'iter_5.pth')
    assert not list(tmp_path.glob('.*.tmp'))


class Send(Hook):
    """A signal in an iteration of the training, or in one of the validation after it."""

    def __init__(self, number, iteration, validating=False):
        self.number, self.iteration, self.validating = number, iteration, validating

    def after_train_iter(self, runner, *args, **kwargs):
        if runner.iter + 1 == self.iteration and not self.validating:
            os.kill(os.getpid(), self.number)

    def after_val_iter(self, runner, batch_idx, *args, **kwargs):
        self.last = batch_idx
        if runner.iter == self.iteration and batch_idx == 1 and self.validating:
            os.kill(os.getpid(), self.number)


@pytest.fixture(autouse=True)
def ctrl_c_is_heard():
    """A shell's background job starts with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_signals_save_and_end(tmp_path, number):
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as exit:
        train(tmp_path, [Send(number, 11)], interval=1)
    assert exit.value.code == 128 + number
    assert names(tmp_path) == ['epoch_1.pth', 'iter_11.pth']
    said = f'Stopped by {number.name} after iteration 11; it continues from iter_11.pth'
    assert any(said in message for message in train.said)
    assert signal.getsignal(number) == before


@pytest.mark.parametrize(('interval', 'files', 'last'), [(1, ['epoch_1.pth'], 1), (9, [], 3)])
def test_a_signal_in_validation_saves_what_is_not_saved_yet(tmp_path, interval, files, last):
    """The run waits for the rest of the validation only if the epoch has no checkpoint."""
    hook = Send(signal.SIGINT, 8, validating=True)
    validation = dict(
        val_dataloader=DataLoader(ToyDataset(), batch_size=4),
        val_cfg=dict(),
        val_evaluator=dict(type=ToyAccuracy),
    )
    with pytest.raises(SystemExit):
        train(tmp_path, [hook], runner=validation, interval=interval)
    assert names(tmp_path) == (files or ['iter_8.pth']) and hook.last == last
    state = torch.load(tmp_path / names(tmp_path)[0], weights_only=True)
    assert (state['meta']['epoch'], state['meta']['iter']) == (1, 8)


def test_signals_are_given_back_after_an_error(tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(CheckpointWriteError):
        train(tmp_path, [FullDisk(monkeypatch, 5, 99)], interval=5, by_epoch=False, on_error='stop')
    assert signal.getsignal(signal.SIGINT) == before


def test_checkpoints_beside_a_damaged_one_are_found_on_their_own_disk(tmp_path):
    train(tmp_path / 'work', interval=1, out_dir=str(tmp_path / 'disk'))
    disk = tmp_path / 'disk/work'
    (disk / 'epoch_2.pth').write_bytes(b'PK')
    assert latest_checkpoint(tmp_path / 'work') == disk / 'epoch_1.pth'


def test_what_a_kill_has_left_is_removed(tmp_path):
    (tmp_path / '.epoch_1.pth.123.tmp').touch()
    (tmp_path / '.epoch_2.pth.tmp').mkdir()
    train(tmp_path, interval=1)
    assert not [file for file in os.listdir(tmp_path) if file.endswith('.tmp')]


@pytest.mark.parametrize('damage', ['half', 'empty', 'one bit', 'gone'])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, damage):
    train(tmp_path, interval=1)
    newest = tmp_path / 'epoch_2.pth'
    content = bytearray(newest.read_bytes())
    if damage == 'one bit':
        weight = torch.load(newest, weights_only=True)['state_dict']['linear.weight']
        content[content.index(weight.numpy().tobytes())] ^= 1
    newest.write_bytes(content[: {'half': len(content) // 2, 'empty': 0}.get(damage)])
    if damage == 'gone':
        newest.unlink()
    assert latest_checkpoint(tmp_path) == tmp_path / 'epoch_1.pth'
    (tmp_path / 'epoch_1.pth').write_bytes(b'PK')
    with pytest.raises(CheckpointError, match=r'None of the \d checkpoints .* is intact'):
        latest_checkpoint(tmp_path)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="expected 'continue' or 'stop'"):
        AtomicCheckpointHook(on_error='ignore')
