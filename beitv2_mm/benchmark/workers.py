"""Data loaders over an index of many paths: memory of all processes, time to the first batch."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mmpretrain.datasets import CustomDataset
from torch.utils.data import DataLoader

from beitv2_mm.benchmark.memory import family_memory
from beitv2_mm.benchmark.work import OURS, Settings, Step, Work
from beitv2_mm.datasets import ImageFolder

BATCH = 512


@dataclass(frozen=True)
class Loader(Work):
    """Every path of the index is read once; no image is: memory is that of the index."""

    workers: int = 1
    serialize: bool = True  # False: a Python list, which every worker copies as it reads it

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
                serialize_data=self.serialize,
                test_mode=True,
            )
        settings = dict(
            batch_size=BATCH,
            num_workers=self.workers,
            collate_fn=len,
            multiprocessing_context='fork',  # the configs' (mp_start_method)
        )

        def first_batch() -> None:
            next(iter(DataLoader(dataset, **settings)))

        alive = DataLoader(dataset, **settings, persistent_workers=True)

        def whole() -> None:
            for _ in alive:
                pass

        return Step(first_batch, in_full=whole)

    def peak_memory(self, run: Callable[[], object]) -> float | None:
        run()
        return family_memory()  # of workers that wait for the next epoch: they keep what they have


def memory(settings: Settings) -> list[Work]:
    """With one worker and with many."""
    return [Loader(settings, workers) for workers in settings.workers]
