"""Counts the unreadable images of a run in the log and lists them in its work directory."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner

from beitv2_mm.checkpoint.atomic import write_atomic
from beitv2_mm.datasets.skipping import SkipUnreadable
from beitv2_mm.registry import HOOKS


@HOOKS.register_module()
class UnreadableImagesHook(Hook):
    """Logs how many images all ranks skipped for which reason, and lists them in
    ``unreadable_images.json``: path -> reason.

    Images that earlier runs found stay on the list; delete it after repairing them.

    Args:
        interval: iterations between reports in iteration-based runs; other runs report each epoch.
    """

    def __init__(self, interval: int = 1000) -> None:
        self.interval = interval

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Reports training images in iteration-based runs."""
        if isinstance(runner.train_loop, IterBasedTrainLoop) and self.every_n_train_iters(
            runner, self.interval
        ):
            self.after_train_epoch(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Reports training images."""
        _report(runner, runner.train_loop.dataloader.dataset, 'training')

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Reports validation images."""
        _report(runner, runner.val_loop.dataloader.dataset, 'validation')


def _report(runner: Runner, dataset: Any, kind: str) -> None:
    """Warns of the unreadable images of a data set; logs nothing if there are none."""
    for part in _parts(dataset):
        faults = part.faults.clone()
        all_reduce(faults, 'max')
        found = part.unreadable(faults)
        if not found or not is_main_process():
            continue
        counts = Counter(found.values()).most_common()
        runner.logger.warning(
            f'{len(found)} of {len(part)} {kind} images are unreadable '
            f'({", ".join(f"{count} {reason}" for reason, count in counts)}) and were not used; '
            f'{_list(Path(runner.work_dir), found)} names them.'
        )


def _parts(dataset: Any) -> Iterator[SkipUnreadable]:
    """The data sets within mmengine's wrappers."""
    if isinstance(dataset, SkipUnreadable):
        dataset.full_init()
        yield dataset
    for part in (getattr(dataset, 'dataset', None), *getattr(dataset, 'datasets', ())):
        if part is not None:
            yield from _parts(part)


def _list(folder: Path, found: dict[str, Any]) -> Path:
    path = folder / 'unreadable_images.json'
    try:
        known = dict(json.loads(path.read_bytes()))
    except (FileNotFoundError, TypeError, ValueError):  # no list yet, or edited by hand
        known = {}
    if not found.items() <= known.items():
        text = json.dumps({**known, **found}, indent=1, sort_keys=True)
        write_atomic(path, text.encode())
    return path
