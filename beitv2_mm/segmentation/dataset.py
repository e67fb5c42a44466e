"""ADE20K, or any folder of images and folder of masks, as a data set of mmseg."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmseg.datasets import ADE20KDataset, BaseSegDataset

from beitv2_mm.datasets.image_folder import EXTENSIONS
from beitv2_mm.datasets.listing import walk
from beitv2_mm.datasets.pixel_rules import BAND_EXTENSIONS, COLOURS, PixelRules
from beitv2_mm.datasets.reading import UnreadableImageError, read_labels
from beitv2_mm.datasets.skipping import SkipUnreadable
from beitv2_mm.registry import DATASETS
from beitv2_mm.segmentation.load_mask import IGNORE, check_labels

MAX_CHECKED = 200  # masks read before training starts


@DATASETS.register_module()
class ADE20K(SkipUnreadable, ADE20KDataset):
    """mmseg's ADE20K; a pair with an unreadable image or mask is skipped in training."""


@DATASETS.register_module()
class ImageMaskFolder(PixelRules, BaseSegDataset):
    """Images below one folder and their masks, of the same relative name, below another.

    Masks have one label a pixel, from 0, and 255 is ignored. Hidden files are left out.

    Args:
        classes: names in the order of the labels, or the path of a text file with one a line.
        data_root: the folder that holds both.
        data_prefix: where images and masks are below it; without ``seg_map_path`` there are no
            masks to read (prediction).
        ann_file: a text file with the relative names, without extension, of the images to use; all
            images if it is empty.
        palette: an (R, G, B) for each class; None makes a palette.
        img_suffix: extensions of images, any case.
        channels, white: see `PixelRules`; with other than 3 channels, .npy files are images, too.
        reduce_zero_label: 0 is unlabelled background, and classes have labels from 1.
        kwargs: of mmseg's BaseSegDataset and of `SkipUnreadable`: a pair with an unreadable image
            or mask is skipped.

    Raises:
        FileNotFoundError: a folder or all images are missing, or a mask, which is named.
        ValueError: a mask, which is named, has labels without class; or ``reduce_zero_label`` is
            set, but label 0 looks like a class, because no mask has the last class. Up to 200 masks
            are checked here, and `LoadMask` checks each mask that it reads.
    """

    def __init__(
        self,
        classes: Sequence[str] | str,
        data_root: str,
        data_prefix: dict | None = None,
        ann_file: str = '',
        palette: Sequence[Sequence[int]] | None = None,
        img_suffix: Sequence[str] | None = None,
        seg_map_suffix: str = '.png',
        channels: int = COLOURS,
        **kwargs: Any,
    ) -> None:
        if isinstance(classes, str):
            lines = Path(classes).expanduser().read_text(encoding='utf-8').splitlines()
            classes = [line.strip() for line in lines if line.strip()]
        if not 1 <= len(classes) <= IGNORE:
            raise ValueError(f'classes has {len(classes)} names; expected 1 to {IGNORE}.')
        if len(set(classes)) != len(classes):
            raise ValueError(f'classes names one twice: {sorted(classes)}.')
        if palette is not None and len(palette) != len(classes):
            raise ValueError(f'palette has {len(palette)} colours for {len(classes)} classes.')
        metainfo: dict[str, Any] = dict(classes=tuple(classes))
        if palette is not None:
            metainfo['palette'] = [list(color) for color in palette]
        if img_suffix is None:
            img_suffix = EXTENSIONS + (() if channels == COLOURS else BAND_EXTENSIONS)
        super().__init__(
            ann_file=ann_file,
            channels=channels,
            img_suffix=tuple(suffix.lower() for suffix in img_suffix),
            seg_map_suffix=seg_map_suffix,
            metainfo=metainfo,
            data_root=os.path.expanduser(data_root),
            data_prefix=data_prefix or dict(img_path='images', seg_map_path='masks'),
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """One dict an image; see mmseg's BaseSegDataset."""
        images = Path(self.data_prefix['img_path'])
        masks = self.data_prefix.get('seg_map_path')
        for folder in filter(None, (images, masks)):
            if not Path(folder).is_dir():
                raise FileNotFoundError(
                    f'There is no folder {Path(folder).absolute()}. Check data_root and '
                    'data_prefix in the config.'
                )
        circles: list[str] = []
        found = sorted(
            images / name
            for name in walk(str(images), circles)
            if name.lower().endswith(self.img_suffix) and '/.' not in f'/{name}'
        )
        self.leave_out(str(images), circles)
        everything = list(map(str, found))
        if self.ann_file:
            found = self._listed({str(p.relative_to(images).with_suffix('')): p for p in found})
        if not found:
            raise FileNotFoundError(
                f'There is no image in {images.absolute()} or below; files ending in '
                f'{", ".join(self.img_suffix)} were looked for.'
            )
        self.settle_pixels(everything, str, str(images))
        data = []
        for path in found:
            info = dict(
                img_path=str(path),
                classes=self.metainfo['classes'],
                label_map=self.label_map,
                reduce_zero_label=self.reduce_zero_label,
                seg_fields=[],
            )
            if masks:
                relative = path.relative_to(images).with_suffix(self.seg_map_suffix)
                info['seg_map_path'] = str(Path(masks) / relative)
            data.append(info)
        if masks:
            self._check(data)
        return data

    def _listed(self, images: dict[str, Path]) -> list[Path]:
        lines = Path(self.ann_file).read_text(encoding='utf-8').splitlines()
        names = [line.strip() for line in lines if line.strip()]
        unknown = [name for name in names if name not in images]
        if unknown:
            raise FileNotFoundError(
                f'{self.ann_file} names {len(unknown)} images that are not there, e.g. '
                f'{unknown[0]}.'
            )
        return [images[name] for name in names]

    def _check(self, data: list[dict]) -> None:
        """Every mask exists; a sample of them has labels that the class list explains."""
        missing = [i for i in data if not os.path.lexists(i['seg_map_path'])]
        if missing:
            raise FileNotFoundError(
                f'{len(missing)} of {len(data)} images have no mask, e.g. '
                f'{missing[0]["img_path"]}: {missing[0]["seg_map_path"]} was expected.'
            )
        classes, highest, zero_in = self.metainfo['classes'], -1, ''
        for i in np.unique(np.linspace(0, len(data) - 1, MAX_CHECKED, dtype=int)):
            path = data[i]['seg_map_path']
            try:
                mask = read_labels(path)
            except UnreadableImageError:
                if self.on_error == 'raise':
                    raise
                continue  # skipped, and named, when its turn comes
            check_labels(mask, path, classes, self.reduce_zero_label)
            highest = max(highest, int(mask.max(initial=-1, where=mask != IGNORE)))
            zero_in = zero_in or (path if (mask == 0).any() else '')
        if self.reduce_zero_label and zero_in and highest < len(classes):
            raise ValueError(
                f'reduce_zero_label=True takes label 0 for unlabelled background and 1 to '
                f'{len(classes)} for the classes, but no mask has label {len(classes)} '
                f'({classes[-1]}), and {zero_in} has label 0: it looks like the class '
                f'{classes[0]}, on data without background. Set reduce_zero_label=False, or take '
                'the last class off the list if it really never occurs.'
            )
