"""Data loaders over an index of many paths: memory of all processes, time to the first batch."""

import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmpretrain.datasets import CustomDataset
from torch.utils.data import DataLoader, Dataset

from beitv2_mm.benchmark.memory import family_memory
from beitv2_mm.benchmark.work import OURS, Settings, Step, Work
from beitv2_mm.datasets import ImageFolder
from beitv2_mm.datasets.image_list import Line, read_list

BATCH = 512


class Listed(ImageFolder):
    """A data set whose files need not exist."""

    def _lines(self) -> list[Line]:
        return read_list(self.ann_file, self.with_label)


@dataclass(frozen=True)
class Loader(Work):
    """Reads every path of the index once, and no image: the memory is that of the index."""

    workers: int = 1

    implementations = (OURS, 'mmpretrain')

    @property
    def name(self) -> str:
        return f'loader, {self.settings.index_size} paths, {self.workers} workers'

    def _dataset(self, implementation: str) -> Dataset:
        with tempfile.TemporaryDirectory() as folder:
            index = Path(folder) / 'index.txt'
            with index.open('w') as file:
                for i in range(self.settings.index_size):
                    file.write(f'n{i // 1300:08d}/n{i // 1300:08d}_{i % 1300:05d}.JPEG\n')
            kind = Listed if implementation == OURS else CustomDataset
            return kind(
                data_root='/data/imagenet/train',
                ann_file=str(index),
                with_label=False,
                pipeline=[],
                test_mode=True,
            )

    def _loader(self, dataset: Dataset, **settings: Any) -> DataLoader:
        return DataLoader(
            dataset,
            batch_size=BATCH,
            num_workers=self.workers,
            collate_fn=len,
            multiprocessing_context='fork',  # the configs' (mp_start_method)
            **settings,
        )

    def build(self, implementation: str) -> Step:
        dataset = self._dataset(implementation)

        def first_batch() -> None:
            next(iter(self._loader(dataset)))

        return Step(first_batch)

    def peak_memory(self, implementation: str, step: Step) -> float | None:
        # Measured in a separate process: pages shared with this one would count only in part.
        context = multiprocessing.get_context('spawn')
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(self.memory_after_an_epoch, implementation).result()

    def memory_after_an_epoch(self, implementation: str) -> float | None:
        """MiB of this process and its workers, after they have read every path."""
        torch.set_num_threads(1)
        loader = self._loader(self._dataset(implementation), persistent_workers=True)
        for _ in loader:
            pass
        return family_memory()


def memory(settings: Settings) -> list[Work]:
    """With one worker and with many."""
    return [Loader(settings, workers) for workers in settings.workers]
