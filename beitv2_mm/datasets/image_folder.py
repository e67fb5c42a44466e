"""Any folder tree of images as a data set: index -> what the pipeline makes of that file."""

import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from mmengine.fileio import get_file_backend
from mmengine.logging import print_log
from mmpretrain.datasets.custom import CustomDataset

from beitv2_mm.datasets.packed import pack_uri
from beitv2_mm.datasets.skipping import SkipUnreadable
from beitv2_mm.registry import DATASETS

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.ppm', '.pgm', '.tif', '.tiff')


@DATASETS.register_module()
class ImageFolder(SkipUnreadable, CustomDataset):
    """All images below ``data_root``, in sorted order; hidden files and folders are ignored.

    Args:
        data_root: the folder, or its pack (``images.tar``, see `beitv2_mm.datasets.packing`).
        with_label: the folders directly below it are the classes, in sorted order.
        pipeline: transforms; the first ones load the image (``results['img']``).
        on_error, max_refetch: see `SkipUnreadable`. Of images held out by ``val_images`` the
            unreadable ones are left out, once, before the first is asked for.
        subset, val_images: a fixed split without labels: ``val_images`` images, drawn by
            ``split_seed``, are the 'val' subset (a tenth of a folder that has fewer than ten
            times as many, at least one); 'train' is the others.
        val_per_class, samples_per_class: with labels, a fixed split that is disjoint and
            balanced. ``val_per_class`` images of each class, drawn by ``split_seed``, are the
            'val' subset; 'train' is the others, at most ``samples_per_class`` of each class (a
            smaller number gives a subset of a larger one).
        kwargs: of mmpretrain's CustomDataset (``indices``, ``metainfo``, ``lazy_init``, ...).
    """

    def __init__(
        self,
        data_root: str,
        with_label: bool = False,
        pipeline: Sequence = (),
        on_error: Literal['skip', 'raise'] = 'skip',
        subset: Literal['train', 'val'] = 'train',
        val_images: int = 0,
        val_per_class: int = 0,
        samples_per_class: int | None = None,
        split_seed: int = 0,
        extensions: Sequence[str] = EXTENSIONS,
        max_refetch: int = 100,
        **kwargs: Any,
    ) -> None:
        if subset not in ('train', 'val'):
            raise ValueError(f"subset is {subset!r}; expected 'train' or 'val'.")
        if (val_per_class or samples_per_class is not None) and not with_label:
            raise ValueError(
                'val_per_class and samples_per_class count images of a class: set with_label=True '
                'as well (and have one folder per class).'
            )
        if val_images and (val_per_class or samples_per_class is not None):
            raise ValueError(
                f'val_images={val_images} splits the folder as a whole: leave val_per_class and '
                'samples_per_class out.'
            )
        if subset == 'val' and val_per_class < 1 and val_images < 1:
            raise ValueError(
                f"subset='val' needs val_images or val_per_class >= 1, not {val_images} and "
                f'{val_per_class}.'
            )
        self.subset = subset
        self.val_images = val_images
        self.val_per_class = val_per_class
        self.samples_per_class = samples_per_class
        self.split_seed = split_seed
        super().__init__(
            data_root=pack_uri(os.path.expanduser(data_root)),
            with_label=with_label,
            pipeline=pipeline,
            extensions=extensions,
            on_error=on_error,
            max_refetch=max_refetch,
            **kwargs,
        )

    def is_valid_file(self, filename: str) -> bool:
        """Whether a path relative to the folder is an image that is not hidden."""
        hidden = any(part.startswith('.') for part in filename.split('/'))
        return super().is_valid_file(filename) and not hidden

    def files(self) -> list[str]:
        """All images, as sorted names relative to the folder.

        Raises:
            FileNotFoundError: there is no folder, or no image in it.
            PackError: a pack that is none, or damaged.
        """
        files = sorted(filter(self.is_valid_file, self._list(list_dir=False, recursive=True)))
        if not files:
            raise FileNotFoundError(
                f'There is no image in {_shown(self.img_prefix)} or below; files ending in '
                f'{", ".join(sorted(self.extensions))} (any case) were looked for. Check '
                f'data_root, or pass extensions=(...).'
            )
        return files

    def folders(self) -> list[str]:
        """Names of the folders directly below, sorted: the classes, with images or without."""
        return sorted(name for name in self._list(list_file=False) if not name.startswith('.'))

    def path(self, name: str) -> str:
        """The 'img_path' of one of `files`."""
        path: str = self._backend.join_path(self.img_prefix, name)
        return path

    def _list(self, **what: bool) -> Iterator[str]:
        folder = self.img_prefix
        if '://' not in folder and not os.path.isdir(folder):  # other backends report themselves
            raise FileNotFoundError(
                f'There is no image folder {os.path.abspath(folder)}. Check data_root '
                f'({self.data_root!r}) in the config, or --cfg-options train_dataloader.dataset.'
                f'data_root=DIR.'
            )
        yield from self._backend.list_dir_or_file(folder, **what)

    @property
    def _backend(self) -> Any:
        return get_file_backend(self.img_prefix, enable_singleton=True)

    def _find_samples(self) -> list:
        """File names below the folder, with the class index if ``with_label``."""
        if self.val_images:
            return self._hold_out(self._labelled() if self.with_label else self.files())
        return self._select(self._labelled()) if self.with_label else self.files()

    def _labelled(self) -> list[tuple[str, int]]:
        """Files in class folders and the class index, class by class."""
        folders = self.folders()
        if not folders:
            raise FileNotFoundError(
                f'{_shown(self.img_prefix)} has no class folders; with_label=True expects one '
                f'folder of images per class. Use with_label=False for images without labels.'
            )
        if self.CLASSES is None:
            self._metainfo['classes'] = tuple(folders)
        elif len(self.CLASSES) != len(folders):
            raise ValueError(
                f'{_shown(self.img_prefix)} has {len(folders)} class folders; metainfo names '
                f'{len(self.CLASSES)} classes. They must agree.'
            )
        labels = {folder: label for label, folder in enumerate(folders)}
        parts = sorted(file.split('/', 1) for file in self.files() if '/' in file)
        if not parts:
            raise FileNotFoundError(
                f'The class folders {", ".join(folders)} in {_shown(self.img_prefix)} have no '
                'image. Use with_label=False for images outside of class folders.'
            )
        empty = set(folders) - {folder for folder, _ in parts}
        if empty:
            print_log(
                f'No image in the class folders {", ".join(sorted(empty))}.',
                logger='current',
                level=logging.WARNING,
            )
        return [(f'{folder}/{file}', labels[folder]) for folder, file in parts]

    def _hold_out(self, samples: list) -> list:
        """The subset that was asked for, in the order given."""
        if len(samples) < 2:
            raise ValueError(
                f'{_shown(self.img_prefix)} has one image; val_images='
                f'{self.val_images} needs at least two, one to train on and one to validate on.'
            )
        size = max(1, min(self.val_images, len(samples) // 10))
        rows = np.random.default_rng(self.split_seed).permutation(len(samples))
        rows = rows[:size] if self.subset == 'val' else rows[size:]
        return [samples[row] for row in np.sort(rows)]

    def filter_data(self) -> list[dict]:
        """Leaves unreadable images out of those held out by ``val_images``: they are few."""
        data_list: list[dict] = super().filter_data()
        if not self.val_images or self.subset != 'val' or self.on_error == 'raise':
            return data_list
        readable = [data for data in data_list if self._can_load(data)]
        if not readable:
            raise RuntimeError(
                f'Not one of the {len(data_list)} images held out of '
                f'{_shown(self.img_prefix)} can be read; the warnings above name them.'
            )
        return readable

    def _select(self, samples: list[tuple[str, int]]) -> list[tuple[str, int]]:
        """The subset and number per class that were asked for, in the order given."""
        if not self.val_per_class and self.samples_per_class is None:
            return samples
        labels = np.array([label for _, label in samples])
        chosen = []
        for label, name in enumerate(self._metainfo['classes']):
            rows = np.flatnonzero(labels == label)
            needed = self.val_per_class + (self.samples_per_class or 0)
            if len(rows) < needed:
                raise ValueError(
                    f'Class {name} has {len(rows)} images; val_per_class={self.val_per_class} and '
                    f'samples_per_class={self.samples_per_class} need {needed}. Lower them.'
                )
            rows = np.random.default_rng([self.split_seed, label]).permutation(rows)
            val, train = np.split(rows, [self.val_per_class])
            chosen.append(val if self.subset == 'val' else train[: self.samples_per_class])
        return [samples[row] for row in np.sort(np.concatenate(chosen))]


def _shown(folder: str) -> str:
    """As errors name it."""
    return folder if '://' in folder else os.path.abspath(folder)
