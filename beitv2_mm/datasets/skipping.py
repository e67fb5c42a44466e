"""A data set that skips, counts and names images that cannot be read, or stops at the first one."""

import logging
import os
from collections.abc import Iterable
from typing import Any, Literal

import torch
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from beitv2_mm.datasets.reading import REASONS, Reason, UnreadableImageError


class SkipUnreadable(BaseDataset):
    """A mixin for any data set of mmengine: the first base class.

    Args:
        on_error: 'skip' warns once of an unreadable image, counts it in :attr:`num_unreadable` and
            replaces it by another image, drawn from NumPy's global state; 'raise' raises an error,
            as ``test_mode=True`` always does, because a replaced image would falsify an evaluation.
        max_refetch: number of unreadable images in a row after which an error is raised.
    """

    def __init__(
        self,
        *args: Any,
        on_error: Literal['skip', 'raise'] = 'skip',
        max_refetch: int = 100,
        **kwargs: Any,
    ) -> None:
        if on_error not in ('skip', 'raise'):
            raise ValueError(f"on_error is {on_error!r}; expected 'skip' or 'raise'.")
        self.on_error = on_error
        self._left_out: dict[str, Reason] = {}
        super().__init__(*args, max_refetch=max_refetch, **kwargs)

    def full_init(self) -> None:
        """Lists the files (once); see mmengine's BaseDataset."""
        if self._fully_initialized:
            return
        super().full_init()
        # Shared memory tells the main process, other workers and later epochs which images a
        # worker found unreadable: 0 is readable, n is the n-th of REASONS.
        self.faults = torch.zeros(len(self), dtype=torch.uint8).share_memory_()

    @property
    def num_unreadable(self) -> int:
        """Number of files found unreadable so far, in this process and its workers."""
        found = int(self.faults.count_nonzero()) if self._fully_initialized else 0
        return found + len(self._left_out)

    def unreadable(self, faults: torch.Tensor | None = None) -> dict[str, Reason]:
        """Path -> reason of unreadable files: ``faults`` of all ranks, or those of this rank."""
        faults = self.faults if faults is None else faults
        found = {
            self.get_data_info(int(i))['img_path']: REASONS[int(faults[i]) - 1]
            for i in faults.nonzero().flatten()
        }
        return {**self._left_out, **found}

    def leave_out(self, folder: str, circles: Iterable[str]) -> None:
        """Counts links in ``folder`` that lead in a circle as unreadable images."""
        visible = [name for name in sorted(circles) if '/.' not in f'/{name}']
        paths = {os.path.join(folder, name): name for name in visible}
        if paths.keys() - self._left_out.keys():
            print_log(
                f'{len(visible)} links in {os.path.abspath(folder)} lead in a circle, e.g. '
                f'{visible[0]}: they were not followed.',
                logger='current',
                level=logging.WARNING,
            )
        self._left_out.update(dict.fromkeys(paths, 'missing'))

    def _can_load(self, data: dict) -> bool:
        """Whether the image of a sample can be read; an unreadable one is logged and counted."""
        path, results = data['img_path'], dict(data)
        try:
            for transform in self.pipeline.transforms:
                if 'img' in results:
                    break
                results = transform(results)
        except Exception as error:  # decoders raise whatever they like
            self._left_out[path] = _reason(error)
            print_log(
                f'{_message(path, error)}: left out of the validation.',
                logger='current',
                level=logging.WARNING,
            )
            return False
        return True

    def __getitem__(self, idx: int) -> dict:
        """The pipeline's result for image ``idx``, or for another one where it is unreadable."""
        for _ in range(self.max_refetch + 1):
            data = self.prepare_data(idx)
            if data is not None:
                return data
            last, idx = idx, self._rand_another()
        raise RuntimeError(
            f'{self.max_refetch + 1} images in a row could not be used, the last one being '
            f'{self.get_data_info(last)["img_path"]} ({self.num_unreadable} of {len(self)} are '
            f'known to be unreadable; the warnings above name them). Check the folder and the '
            f'pipeline.'
        )

    def prepare_data(self, idx: int) -> dict | None:
        """The pipeline's result; None where the image is unreadable and may be skipped."""
        data = self.get_data_info(idx)
        path = data['img_path']
        for transform in self.pipeline.transforms:
            # Once there is an image, an error is the pipeline's fault and must not look like one
            # bad file after the other.
            loaded = isinstance(data, dict) and 'img' in data
            try:
                data = transform(data)
            except Exception as error:
                if loaded and not isinstance(
                    error, UnreadableImageError
                ):  # a mask may be unreadable
                    raise RuntimeError(
                        f'{type(transform).__name__} failed on {path}: {error}'
                    ) from error
                self._report(idx, path, error)
                return None
            if data is None:
                # after loading, None asks for another image (mmengine's convention)
                if not loaded or self.test_mode:
                    self._report(idx, path, None)
                return None
        return data

    def _report(self, idx: int, path: str, error: Exception | None) -> None:
        message = _message(path, error)
        if self.test_mode or self.on_error == 'raise':
            raise RuntimeError(
                f'{message}. Repair or remove the file'
                + ('.' if self.test_mode else ", or set on_error='skip'.")
            ) from error
        if not self.faults[idx]:
            self.faults[idx] = 1 + REASONS.index(_reason(error))
            print_log(
                f'{message}: skipped, another image takes its place.',
                logger='current',
                level=logging.WARNING,
            )


def _reason(error: Exception | None) -> Reason:
    return error.reason if isinstance(error, UnreadableImageError) else 'other'


def _message(path: str, error: Exception | None) -> str:
    if isinstance(error, UnreadableImageError):
        return str(error)
    why = f'{type(error).__name__}: {error}' if error else 'the pipeline returned nothing'
    return f'Cannot read the image {path} ({why})'
