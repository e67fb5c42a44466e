"""Trains a tiny tokenizer on two processes under torchrun's elastic agent while faults strike.

    python tests/support/fault_run.py OUT --kills 20

An undisturbed run comes first. The other one has its processes killed (at random moments, and in
the middle of writing a checkpoint), stopped by SIGTERM, its newest checkpoint truncated and the
disk of its checkpoints filled: a tmpfs where one may be mounted (root), else RLIMIT_FSIZE stands in
for it. In both, images vanish and are damaged after they were listed. At the end the weights, the
quantizer, the moving average and the optimizer have to be equal bit for bit.
"""

import argparse
import json
import os
import random
import resource
import signal
import sys
import threading
import time
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
# One store for all lives of the processes keeps the addresses of dead ones, which gloo then calls.
os.environ['TORCH_DISABLE_SHARE_RDZV_TCP_STORE'] = '1'

import torch
from mmengine.config import Config
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import beitv2_mm.segmentation  # noqa: F401  imported once: the processes are forked
from beitv2_mm.engine import AtomicCheckpointHook  # noqa: F401
from beitv2_mm.engine.resume import intact
from support.differences import differences
from support.fault_worker import work
from support.shrink import shrink
from support.small_disk import fill, small_disk
from support.tiny import CIFAR

ROOT = Path(__file__).parents[2]
INTERVAL = 4  # iterations between checkpoints
PER_EPOCH = 2  # 20 images, 2 processes, batches of 4, the rest dropped


def write_config(folder: Path, epochs: int, interval: int) -> str:
    cfg = shrink(Config.fromfile(ROOT / 'configs/pretrain/vqkd_tiny_1xb64_cifar10.py'), folder)
    data = cfg.train_dataloader.dataset
    data.update(type='beitv2_mm.ImageFolder', data_root=str(folder / 'images'))
    for key in ('indices', 'subset', 'val_per_class', 'samples_per_class', 'with_label'):
        data.pop(key, None)
    for part in ('encoder', 'decoder'):
        cfg.model[part].drop_path_rate = 0.3
    cfg.model.quantizer.revive_after = 2
    cfg.train_cfg.update(max_epochs=epochs, val_interval=epochs + 1)
    for name in ('val_dataloader', 'val_cfg', 'val_evaluator', 'test_dataloader', 'test_cfg'):
        cfg[name] = None
    cfg.test_evaluator = None
    cfg.default_hooks.checkpoint.update(
        by_epoch=False, interval=interval, poll=1, out_dir=str(folder / 'disk')
    )
    cfg.custom_hooks = [
        *(hook for hook in cfg.custom_hooks if 'RunPage' not in str(hook['type'])),
        dict(type='mmengine.hooks.EMAHook'),
        dict(type='support.fault_worker.BreakImages', folder=str(folder / 'images')),
        dict(type='support.fault_worker.StepLog', folder=str(folder)),
    ]
    cfg.dump(folder / 'config.py')
    return str(folder / 'config.py')


def train(folder: Path, epochs: int, restarts: int, interval: int) -> None:
    """To the end, whatever happens to the processes; raises where they fail too often."""
    folder.mkdir(parents=True, exist_ok=True)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        max_restarts=restarts,
        monitor_interval=0.05,
        start_method='fork',
        rdzv_backend='c10d',
        rdzv_endpoint='127.0.0.1:0',
        run_id=folder.name,
    )
    elastic_launch(config, work)(write_config(folder, epochs, interval), str(folder), str(CIFAR))


class Tormentor(threading.Thread):
    """Lets one fault after the other strike a run; what it did is in ``faults``."""

    def __init__(self, folder: Path, faults: list[str], seed: int, mounted: bool) -> None:
        super().__init__(daemon=True)
        self.folder, self.plan = folder, faults
        self.disk, self.mounted = folder / 'disk', mounted
        self.random = random.Random(seed)
        self.faults: list[dict] = []
        self.error: Exception | None = None
        self.lives = 0

    def run(self) -> None:
        try:
            for fault in self.plan:
                # counted in iterations: a fast machine is not through before the last fault
                more = self.random.randint(0, 2 * INTERVAL)
                self._wait_for(lambda more=more: self._trained(2 + more))
                time.sleep(self.random.uniform(0, 0.1))
                getattr(self, f'_{fault}')()
                self.lives += fault != 'disk'
        except Exception as error:
            self.error = error

    def _wait_for(self, ready: object, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while not ready():  # type: ignore[operator]
            if time.monotonic() > end:
                raise TimeoutError(f'{ready} of fault {len(self.faults) + 1}')
            time.sleep(0.01)

    def _trained(self, steps: int) -> bool:
        """Whether this life of the processes has trained more than these."""
        starts = read_steps(self.folder, 0)
        return len(starts) > self.lives and len(starts[-1][1]) > steps

    def _pids(self) -> list[int]:
        return [int((self.folder / f'pid{rank}').read_text()) for rank in (0, 1)]

    def _saved(self) -> int:
        """Iteration of the last checkpoint, or of the one before it where that was truncated."""
        pointer = self.folder / 'work/last_checkpoint'
        last = int(pointer.read_text().split('iter_')[-1][:-4]) if pointer.exists() else 0
        whole = [int(file.stem.split('_')[1]) for file in self._checkpoints()]
        return max((iteration for iteration in whole if iteration <= last), default=0)

    def _note(self, fault: str, saved: int) -> None:
        self.faults.append(dict(fault=fault, saved=saved))

    def _kill(self) -> None:
        self._note('kill', self._saved())
        os.kill(self.random.choice(self._pids()), signal.SIGKILL)

    def _kill_writing(self) -> None:
        saved = self._saved()
        token = self.folder / 'die_writing'
        token.touch()
        self._wait_for(lambda: not token.exists())
        self._note('kill_writing', saved)

    def _term(self) -> None:
        self._note('term', self._saved())
        os.kill(self.random.choice(self._pids()), signal.SIGTERM)

    def _truncate(self) -> None:
        self._wait_for(lambda: len(self._checkpoints()) > 1)
        pids = self._pids()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        newest, before = self._checkpoints()[:2]
        os.truncate(newest, newest.stat().st_size // 2)
        self._note('truncate', int(before.stem.split('_')[1]))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    def _checkpoints(self) -> list[Path]:
        files = (self.disk / 'work').glob('iter_*.pth')
        whole = [file for file in files if intact(file)]
        return sorted(whole, key=lambda file: int(file.stem.split('_')[1]), reverse=True)

    def _disk(self) -> None:
        """Full until a checkpoint has failed. Without a disk of its own no file may grow beyond
        600 kB, less than a checkpoint and more than the other files."""
        said, pid, saved = self._complaints(), self._pids()[0], self._saved()
        limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        if self.mounted:
            ballast = fill(self.disk)
        else:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (600_000, limits[1]))
        self._wait_for(lambda: self._complaints() > said)
        kept = intact(self.disk / f'work/iter_{self._saved()}.pth')
        if self.mounted:
            ballast.unlink()
        else:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
        self.faults.append(dict(fault='disk', saved=saved, last_good_intact=kept))

    def _complaints(self) -> int:
        logs = self.folder.glob('rank0.*.log')
        return sum(log.read_text().count('could not be written') for log in logs)


def read_steps(folder: Path, rank: int) -> list[tuple[int, list[tuple[int, float]]]]:
    """For each life of a process: the iteration it started from, its iterations and losses."""
    lives: list[tuple[int, list]] = []
    file = folder / f'steps{rank}.jsonl'
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            kind, iteration, loss = json.loads(line)
        except json.JSONDecodeError:  # it was killed while it wrote
            continue
        if kind == 'start':
            lives.append((iteration, []))
        elif lives:
            lives[-1][1].append((iteration, loss))
    return lives


def final(folder: Path, iterations: int) -> dict:
    checkpoint = torch.load(folder / f'disk/work/iter_{iterations}.pth', weights_only=True)
    return {
        key: checkpoint[key]
        for key in ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers')
    }


def run(out: Path, plan: list[str], epochs: int, seed: int = 0) -> dict:
    """Both runs; what happened, and the names of what differs."""
    began = time.monotonic()
    train(out / 'undisturbed', epochs, 0, epochs * PER_EPOCH)  # saves at its end only
    undisturbed = time.monotonic() - began
    with small_disk(out / 'disturbed/disk') as mounted:
        tormentor = Tormentor(out / 'disturbed', plan, seed, mounted)
        tormentor.start()
        began = time.monotonic()
        train(out / 'disturbed', epochs, 2 * len(plan), INTERVAL)
        tormentor.join(1)
    lives = read_steps(out / 'disturbed', 0)
    reference = dict(read_steps(out / 'undisturbed', 0)[0][1])
    fatal = [fault for fault in tormentor.faults if fault['fault'] != 'disk']
    resumed = [start for start, _ in lives[1:]]
    trained = [iteration for _, steps in lives for iteration, _ in steps]
    result = dict(
        disk='tmpfs' if mounted else 'RLIMIT_FSIZE',
        faults=tormentor.faults,
        not_struck=plan[len(tormentor.faults) :],
        error=repr(tormentor.error) if tormentor.error else None,
        lives=len(lives),
        resumed_from=resumed,
        lost_checkpoints=[
            (fault, start)
            for fault, start in zip(fatal, resumed, strict=False)
            if start < fault['saved']
        ],
        iterations=epochs * PER_EPOCH,
        iterations_repeated=len(trained) - len(set(trained)),
        repeated_each=[
            steps[-1][0] + 1 - start
            for (_, steps), start in zip(lives, resumed, strict=False)
            if steps
        ],
        losses_that_differ=sum(
            reference[iteration] != loss for _, steps in lives for iteration, loss in steps
        ),
        differences=differences(
            *(final(out / name, epochs * PER_EPOCH) for name in ('undisturbed', 'disturbed'))
        ),
        seconds=dict(undisturbed=undisturbed, disturbed=time.monotonic() - began),
    )
    (out / 'result.json').write_text(json.dumps(result, indent=1))
    return result


def make_plan(kills: int, seed: int) -> list[str]:
    """As many kills, a third of them while a checkpoint is written, and the other faults."""
    plan = ['kill'] * (kills - kills // 3) + ['kill_writing'] * (kills // 3)
    random.Random(seed).shuffle(plan)
    others = max(1, kills // 7)
    for fault in ['term', 'truncate', 'disk'] * others:
        plan.insert(random.Random(seed + len(plan)).randrange(1, len(plan)), fault)
    return plan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('out', type=Path, help='a new folder')
    parser.add_argument('--kills', type=int, default=20)
    parser.add_argument('--epochs', type=int, help=f'of {PER_EPOCH} iterations (enough for them)')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    plan = make_plan(args.kills, args.seed)
    result = run(args.out.absolute(), plan, args.epochs or 8 * len(plan), args.seed)
    sys.stdout.write(json.dumps(result, indent=1) + '\n')
    lost = [fault for fault in result['faults'] if not fault.get('last_good_intact', True)]
    bad = ('not_struck', 'error', 'lost_checkpoints', 'losses_that_differ', 'differences')
    if lost or any(result[key] for key in bad):
        sys.exit('the disturbed run is not equal to the undisturbed one')


if __name__ == '__main__':
    main()
