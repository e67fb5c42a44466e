"""Keeps ``work_dir/run.html`` up to date during a run."""

from collections.abc import Mapping

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner

from beitv2_mm.registry import HOOKS
from beitv2_mm.visualization.run_page import write_run_page


@HOOKS.register_module()
class RunPageHook(Hook):
    """Writes the page after every validation and at the end of the training.

    It shows what the LocalVisBackend wrote; without one there is no page.
    """

    priority = 'VERY_LOW'  # after the logger and the pictures

    def __init__(self) -> None:
        self._told = False
        self._shown = -1  # the iteration that the page shows

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, float] | None = None) -> None:
        """Writes the page."""
        self._write(runner)

    def after_train(self, runner: Runner) -> None:
        """Writes the page, unless a validation after the last step has done so."""
        if self._shown != runner.iter:
            self._write(runner)

    @master_only
    def _write(self, runner: Runner) -> None:
        try:
            page = write_run_page(runner.work_dir)
        except FileNotFoundError:
            if not self._told:
                runner.logger.warning(
                    'There is no run.html: it shows what a LocalVisBackend wrote, but the '
                    'visualizer has no such backend, or nothing was logged yet.'
                )
            self._told = True
        else:
            self._shown = runner.iter
            if not self._told:
                runner.logger.info(f'curves and pictures of this run: {page}')
            self._told = True
