"""Fixed splits of a data set into 'train' and 'val': samples -> rows of the subset, in order."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Split:
    """The settings of a split; `beitv2_mm.datasets.ImageFolder` describes them.

    Raises:
        ValueError: settings that contradict each other.
    """

    subset: str
    val_images: int
    val_per_class: int
    samples_per_class: int | None
    seed: int
    with_label: bool

    def __post_init__(self) -> None:
        if self.subset not in ('train', 'val'):
            raise ValueError(f"subset is {self.subset!r}; expected 'train' or 'val'.")
        if self.by_class and not self.with_label:
            raise ValueError(
                'val_per_class and samples_per_class count images of a class: set with_label=True '
                'as well (and have one folder per class).'
            )
        if self.val_images and self.by_class:
            raise ValueError(
                f'val_images={self.val_images} splits the folder as a whole: leave val_per_class '
                'and samples_per_class out.'
            )
        if self.subset == 'val' and self.val_per_class < 1 and self.val_images < 1:
            raise ValueError(
                f"subset='val' needs val_images or val_per_class >= 1, not {self.val_images} and "
                f'{self.val_per_class}.'
            )

    @property
    def by_class(self) -> bool:
        """Whether the split counts images of each class."""
        return bool(self.val_per_class) or self.samples_per_class is not None

    def rows(self, labels: Sequence[int | None], classes: Sequence[str], where: str) -> np.ndarray:
        """The rows of the subset among all samples.

        Args:
            labels: the class of each sample, None without labels.
            where: the data set, as errors name it.

        Raises:
            ValueError: there are too few images.
        """
        rows = np.arange(len(labels))
        if self.val_images:
            return np.sort(self._held_out(rows, where))
        if not self.by_class:
            return rows
        chosen = []
        for label, name in enumerate(classes):
            of_class = rows[np.equal(labels, label)]
            needed = self.val_per_class + (self.samples_per_class or 0)
            if len(of_class) < needed:
                raise ValueError(
                    f'Class {name} has {len(of_class)} images; val_per_class={self.val_per_class} '
                    f'and samples_per_class={self.samples_per_class} need {needed}. Lower them.'
                )
            of_class = np.random.default_rng([self.seed, label]).permutation(of_class)
            val, train = np.split(of_class, [self.val_per_class])
            chosen.append(val if self.subset == 'val' else train[: self.samples_per_class])
        return np.sort(np.concatenate(chosen))

    def _held_out(self, rows: np.ndarray, where: str) -> np.ndarray:
        if len(rows) < 2:
            raise ValueError(
                f'{where} has one image; val_images={self.val_images} needs at least two, one to '
                'train on and one to validate on.'
            )
        size = max(1, min(self.val_images, len(rows) // 10))
        rows = np.random.default_rng(self.seed).permutation(len(rows))
        return rows[:size] if self.subset == 'val' else rows[size:]
