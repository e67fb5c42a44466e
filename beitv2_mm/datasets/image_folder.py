"""Any folder tree, or list, of images as a data set: index -> the pipeline's result for a file."""

import functools
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from mmengine.fileio import get_file_backend
from mmengine.logging import print_log
from mmpretrain.datasets.custom import CustomDataset

from beitv2_mm.datasets.image_list import Line, check_files, is_list, labels_of, read_list
from beitv2_mm.datasets.listing import folders, walk
from beitv2_mm.datasets.packed import PREFIX, pack_uri
from beitv2_mm.datasets.pixel_rules import BAND_EXTENSIONS, COLOURS, PixelRules
from beitv2_mm.datasets.sampling import shown
from beitv2_mm.datasets.splits import Split
from beitv2_mm.registry import DATASETS

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.ppm', '.pgm', '.tif', '.tiff')


@DATASETS.register_module()
class ImageFolder(PixelRules, CustomDataset):
    """All images below ``data_root``, in sorted order; hidden files and folders are ignored.

    Links are followed. A link that leads nowhere is an unreadable image; a link to a folder that
    contains it is not followed, but counted as an unreadable image.

    Args:
        data_root: the folder, its pack (``images.tar``, see `beitv2_mm.datasets.packing`), or a
            list of images (``images.csv``, see `beitv2_mm.datasets.image_list`) with paths relative
            to the folder of the list.
        ann_file: a list with paths relative to ``data_root``, whose order is kept.
        with_label: the folders directly below ``data_root`` are the classes, in sorted order; a
            list has labels.
        pipeline: transforms; the first ones load the image (``results['img']``).
        channels, white: see `PixelRules`; with other than 3 channels, .npy files are images, too.
        on_error, max_refetch: see `SkipUnreadable`; a 'val' subset leaves out unreadable images.
        subset, val_images: a fixed split without regard to labels. The 'val' subset has
            ``val_images`` images, drawn by ``split_seed`` (but at most a tenth of the folder, and
            at least one), and 'train' has the rest.
        val_per_class, samples_per_class: a fixed, disjoint and balanced split by labels. The 'val'
            subset has ``val_per_class`` images of each class, drawn by ``split_seed``; 'train' has
            the rest, at most ``samples_per_class`` of each class (the images of a smaller number
            are among those of a larger one).
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
        self.split = Split(
            subset, val_images, val_per_class, samples_per_class, split_seed, with_label
        )
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
        """Names of all images, relative to the folder and sorted, or in the order of the list.

        Raises:
            FileNotFoundError: there is no folder, or no image in it.
            PackError: the file is not a pack, or is damaged.
            ValueError: the file is not a list.
        """
        if self.ann_file:
            return [line.path for line in self._lines()]
        circles: list[str] = []
        files = sorted(filter(self.is_valid_file, self._list_files(circles)))
        self.leave_out(self.img_prefix, circles)
        if not files:
            raise FileNotFoundError(
                f'There is no image in {shown(self.img_prefix)} or below; files ending in '
                f'{", ".join(sorted(self.extensions))} (any case) were looked for. Check '
                f'data_root, or pass extensions=(...).'
            )
        return files

    def labels(self) -> dict[str, int]:
        """Name of each class of a labelled list -> number of its images.

        Raises:
            ValueError: a line has no label.
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
        """The 'img_path' of one of the names from `files`."""
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
        if '://' in folder:  # other backends raise errors of their own
            yield from self._backend.list_dir_or_file(folder, list_dir=False, recursive=True)
        else:
            yield from walk(self._checked(folder), circles)

    def _lines(self) -> list[Line]:
        """The lines of the list, after a check that all images exist."""
        lines = read_list(self.ann_file, self.with_label)
        join = functools.partial(self._backend.join_path, self.img_prefix)
        names = [join(line.path) for line in lines]
        if self.img_prefix.startswith(PREFIX):
            pack = set(self._list_files([]))
            lost = [line for line in lines if line.path not in pack]
            if lost:
                raise FileNotFoundError(
                    f'{self.ann_file}, line {lost[0].number}: there is no image {lost[0].path} in '
                    f'{self.img_prefix}: correct the line, or delete it.'
                )
        elif '://' not in self.img_prefix:
            check_files(self.ann_file, lines, names, shown(self.img_prefix))
        return lines

    @property
    def _backend(self) -> Any:
        return get_file_backend(self.img_prefix, enable_singleton=True)

    def load_data_list(self) -> list[dict]:
        """A dict with 'img_path' and, if ``with_label``, 'gt_label' for each image."""
        labelled = self._labelled() if self.with_label else [(name, None) for name in self.files()]
        names = [name for name, _ in labelled]
        self.settle_pixels(names, self.path, self.ann_file or self.img_prefix)
        labels = [label for _, label in labelled]
        rows = self.split.rows(labels, self.CLASSES or (), shown(self.img_prefix))
        join = functools.partial(self._backend.join_path, self.img_prefix)  # looked up once
        if not self.with_label:
            return [dict(img_path=join(names[row])) for row in rows]
        return [dict(img_path=join(names[row]), gt_label=labels[row]) for row in rows]

    def _labelled(self) -> list[tuple[str, int]]:
        """Each image and the index of its class: class by class, or in the order of the list."""
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

    def filter_data(self) -> list[dict]:
        """Removes unreadable images from the few that are held out of a training folder."""
        data_list: list[dict] = super().filter_data()
        held_out = self.split.val_images or self.split.val_per_class
        if not held_out or self.split.subset != 'val' or self.on_error == 'raise':
            return data_list
        readable = [data for data in data_list if self._can_load(data)]
        if not readable:
            raise RuntimeError(
                f'Not one of the {len(data_list)} images held out of '
                f'{shown(self.img_prefix)} can be read; the warnings above name them.'
            )
        return readable


def _place(data_root: str, ann_file: str) -> tuple[str, str]:
    """The folder or pack that paths are relative to, and the list of images, '' without one."""
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
