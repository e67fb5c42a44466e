"""Any folder tree, or list, of images as a data set: index -> what the pipeline makes of a file."""

import functools
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from mmengine.fileio import get_file_backend
from mmengine.logging import print_log
from mmpretrain.datasets.custom import CustomDataset

from beitv2_mm.datasets.image_list import Line, check_files, is_list, labels_of, read_list
from beitv2_mm.datasets.listing import folders, walk
from beitv2_mm.datasets.packed import PREFIX, pack_uri
from beitv2_mm.datasets.pixel_rules import BAND_EXTENSIONS, COLOURS, PixelRules
from beitv2_mm.datasets.sampling import shown
from beitv2_mm.registry import DATASETS

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.ppm', '.pgm', '.tif', '.tiff')


@DATASETS.register_module()
class ImageFolder(PixelRules, CustomDataset):
    """All images below ``data_root``, in sorted order; hidden files and folders are ignored.

    Links are followed. One that leads nowhere is an unreadable image; one to a folder that it is in
    is left out, and counted like an unreadable image.

    Args:
        data_root: the folder, its pack (``images.tar``, see `beitv2_mm.datasets.packing`), or a
            list of images (``images.csv``, see `beitv2_mm.datasets.image_list`), whose paths begin
            at the folder that it is in.
        ann_file: a list, whose paths begin at ``data_root``; in the order of its lines.
        with_label: the folders directly below ``data_root`` are the classes, in sorted order; a
            list has labels.
        pipeline: transforms; the first ones load the image (``results['img']``).
        channels, white: see `PixelRules`; where channels are no colours, .npy files are images.
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
        data_root: str = '',
        with_label: bool = False,
        pipeline: Sequence = (),
        on_error: Literal['skip', 'raise'] = 'skip',
        subset: Literal['train', 'val'] = 'train',
        val_images: int = 0,
        val_per_class: int = 0,
        samples_per_class: int | None = None,
        split_seed: int = 0,
        extensions: Sequence[str] | None = None,
        max_refetch: int = 100,
        ann_file: str = '',
        channels: int = COLOURS,
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
        data_root, ann_file = _place(os.path.expanduser(data_root), os.path.expanduser(ann_file))
        if extensions is None:
            extensions = EXTENSIONS + (() if channels == COLOURS else BAND_EXTENSIONS)
        super().__init__(
            data_root=data_root,
            ann_file=ann_file,
            channels=channels,
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
        """All images, as sorted names relative to the folder; those of a list in its order.

        Raises:
            FileNotFoundError: there is no folder, or no image in it.
            PackError: a pack that is none, or damaged.
            ValueError: a list that is none.
        """
        if self.ann_file:
            return [line.path for line in self._lines()]
        circles: list[str] = []
        files = sorted(filter(self.is_valid_file, self._list_files(circles)))
        self._leave_out(circles)
        if not files:
            raise FileNotFoundError(
                f'There is no image in {shown(self.img_prefix)} or below; files ending in '
                f'{", ".join(sorted(self.extensions))} (any case) were looked for. Check '
                f'data_root, or pass extensions=(...).'
            )
        return files

    def labels(self) -> dict[str, int]:
        """Classes of a labelled list and how many images each has; of a folder, see `folders`.

        Raises:
            ValueError: a line without label.
        """
        numbers, classes = labels_of(self.ann_file, self._lines(), self.CLASSES)
        counts = Counter(numbers)
        return {name: counts[i] for i, name in enumerate(classes)}

    def folders(self) -> list[str]:
        """Names of the folders directly below, sorted: the classes, with images or without."""
        folder = self.img_prefix
        if '://' in folder:
            names = self._backend.list_dir_or_file(folder, list_file=False)
        else:
            names = folders(self._checked(folder))
        return sorted(name for name in names if not name.startswith('.'))

    def path(self, name: str) -> str:
        """The 'img_path' of one of `files`."""
        path: str = self._backend.join_path(self.img_prefix, name)
        return path

    def _checked(self, folder: str) -> str:
        if not os.path.isdir(folder):
            raise FileNotFoundError(
                f'There is no image folder {os.path.abspath(folder)}. Check data_root '
                f'({self.data_root!r}) in the config, or --cfg-options train_dataloader.dataset.'
                f'data_root=DIR.'
            )
        return folder

    def _list_files(self, circles: list[str]) -> Iterator[str]:
        folder = self.img_prefix
        if '://' in folder:  # other backends report themselves
            yield from self._backend.list_dir_or_file(folder, list_dir=False, recursive=True)
        else:
            yield from walk(self._checked(folder), circles)

    def _leave_out(self, circles: list[str]) -> None:
        """Links to a folder that they are in are counted like unreadable images."""
        visible = [name for name in circles if '/.' not in f'/{name}']
        if visible and not self._left_out.keys() >= {self.path(name) for name in visible}:
            print_log(
                f'{len(visible)} links in {shown(self.img_prefix)} lead in a circle, e.g. '
                f'{sorted(visible)[0]}: they were not followed.',
                logger='current',
                level=logging.WARNING,
            )
        self._left_out.update({self.path(name): 'missing' for name in visible})

    def _lines(self) -> list[Line]:
        """The images of the list, all of which exist."""
        lines = read_list(self.ann_file, self.with_label)
        join = functools.partial(self._backend.join_path, self.img_prefix)
        names = [join(line.path) for line in lines]
        if self.img_prefix.startswith(PREFIX):
            pack = set(self._list_files([]))
            lost = [line for line in lines if line.path not in pack]
            if lost:
                raise FileNotFoundError(
                    f'{self.ann_file}, line {lost[0].number}: there is no image {lost[0].path} in '
                    f'{self.img_prefix}: correct the line, or take it out.'
                )
        elif '://' not in self.img_prefix:
            check_files(self.ann_file, lines, names, shown(self.img_prefix))
        return lines

    @property
    def _backend(self) -> Any:
        return get_file_backend(self.img_prefix, enable_singleton=True)

    def load_data_list(self) -> list[dict]:
        """A dict with 'img_path' and, if ``with_label``, 'gt_label' for each image."""
        samples: list = self._labelled() if self.with_label else self.files()
        names = [sample[0] for sample in samples] if self.with_label else samples
        self.settle_pixels(names, self.path, self.ann_file or self.img_prefix)
        if self.val_images:
            samples = self._hold_out(samples)
        elif self.with_label:
            samples = self._select(samples)
        join = functools.partial(self._backend.join_path, self.img_prefix)  # looked up once
        if not self.with_label:
            return [dict(img_path=join(name)) for name in samples]
        return [dict(img_path=join(name), gt_label=label) for name, label in samples]

    def _labelled(self) -> list[tuple[str, int]]:
        """Files in class folders and the class index, class by class; of a list in its order."""
        if self.ann_file:
            lines = self._lines()
            numbers, classes = labels_of(self.ann_file, lines, self.CLASSES)
            self._metainfo['classes'] = tuple(classes)
            return [(line.path, label) for line, label in zip(lines, numbers, strict=True)]
        folders = self.folders()
        if not folders:
            raise FileNotFoundError(
                f'{shown(self.img_prefix)} has no class folders; with_label=True expects one '
                f'folder of images per class. Use with_label=False for images without labels.'
            )
        if self.CLASSES is None:
            self._metainfo['classes'] = tuple(folders)
        elif len(self.CLASSES) != len(folders):
            raise ValueError(
                f'{shown(self.img_prefix)} has {len(folders)} class folders; metainfo names '
                f'{len(self.CLASSES)} classes. They must agree.'
            )
        labels = {folder: label for label, folder in enumerate(folders)}
        parts = sorted(file.split('/', 1) for file in self.files() if '/' in file)
        if not parts:
            raise FileNotFoundError(
                f'The class folders {", ".join(folders)} in {shown(self.img_prefix)} have no '
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
                f'{shown(self.img_prefix)} has one image; val_images='
                f'{self.val_images} needs at least two, one to train on and one to validate on.'
            )
        size = max(1, min(self.val_images, len(samples) // 10))
        rows = np.random.default_rng(self.split_seed).permutation(len(samples))
        rows = rows[:size] if self.subset == 'val' else rows[size:]
        return [samples[row] for row in np.sort(rows)]

    def filter_data(self) -> list[dict]:
        """Leaves unreadable images out of those held out of a training folder: they are few."""
        data_list: list[dict] = super().filter_data()
        held_out = self.subset == 'val' and (self.val_images or self.val_per_class)
        if not held_out or self.on_error == 'raise':
            return data_list
        readable = [data for data in data_list if self._can_load(data)]
        if not readable:
            raise RuntimeError(
                f'Not one of the {len(data_list)} images held out of '
                f'{shown(self.img_prefix)} can be read; the warnings above name them.'
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


def _place(data_root: str, ann_file: str) -> tuple[str, str]:
    """The folder or pack that paths begin at, and the list of images, if there is one."""
    if not ann_file and is_list(data_root):
        ann_file, data_root = os.path.abspath(data_root), os.path.dirname(data_root)
    elif ann_file and '://' not in ann_file:
        below = os.path.join(data_root, ann_file)
        ann_file = os.path.abspath(below if os.path.isfile(below) else ann_file)
        if not os.path.isfile(ann_file):
            raise FileNotFoundError(
                f'There is no list of images {ann_file}, and none in data_root ({data_root!r}): '
                'check ann_file.'
            )
        data_root = data_root or os.path.dirname(ann_file)
    return pack_uri(data_root or ('.' if ann_file else '')), ann_file
