"""Data loaders over an index of many paths: memory of all processes, time to the first batch."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mmpretrain.datasets import CustomDataset
from torch.utils.data import DataLoader

from beitv2_mm.benchmark.memory import peak_of_family
from beitv2_mm.benchmark.work import OURS, Settings, Step, Work
from beitv2_mm.datasets import ImageFolder

BATCH = 512


@dataclass(frozen=True)
class Loader(Work):
    """Every path of the index is read once; no image is: memory is that of the index."""

    workers: int = 1

    implementations = (OURS, 'mmpretrain')
    start_method = 'spawn'  # pages shared with the process that asks would count in part

    @property
    def name(self) -> str:
        return f'loader, {self.settings.index_size} paths, {self.workers} workers'

    def build(self, implementation: str) -> Step:
        with tempfile.TemporaryDirectory() as folder:
            index = Path(folder) / 'index.txt'
            with index.open('w') as file:
                for i in range(self.settings.index_size):
                    file.write(f'n{i // 1300:08d}/n{i // 1300:08d}_{i % 1300:05d}.JPEG\n')
            kind = ImageFolder if implementation == OURS else CustomDataset
            dataset = kind(
                data_root='/data/imagenet/train',
                ann_file=str(index),
                with_label=False,
                pipeline=[],
                test_mode=True,
            )
        loader = DataLoader(dataset, BATCH, num_workers=self.workers, collate_fn=len)

        def first_batch() -> None:
            next(iter(loader))

        def whole() -> None:
            for _ in loader:
                pass

        return Step(first_batch, in_full=whole)

    def peak_memory(self, run: Callable[[], object]) -> float | None:
        return peak_of_family(run)


def memory(settings: Settings) -> list[Work]:
    """With one worker and with many."""
    return [Loader(settings, workers) for workers in settings.workers]
