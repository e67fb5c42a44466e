"""A folder of images and a json in COCO's layout, as a data set of mmdet."""

import logging
from collections.abc import Sequence
from typing import Any

from mmdet.datasets import CocoDataset
from mmengine.logging import print_log

from beitv2_mm.datasets.coco_layout import category_names, check_coco, read_coco
from beitv2_mm.datasets.pixel_rules import PixelRules
from beitv2_mm.registry import DATASETS


@DATASETS.register_module()
class CocoFolder(PixelRules, CocoDataset):
    """mmdet's CocoDataset, checked, with the classes of the json.

    Boxes without area are left out, and counted in a warning; boxes that reach over the border are
    cut. Crowds and images without boxes are allowed.

    Args:
        classes: names of the classes to take, None for all; their labels are in the order of the
            category ids, which may have gaps.
        channels, white: see `PixelRules`.
        kwargs: of mmdet's CocoDataset: ``data_root``, ``ann_file``, ``data_prefix=dict(img=...)``,
            ``filter_cfg``, ``pipeline``; and of `SkipUnreadable`: an unreadable image is skipped.

    Raises:
        FileNotFoundError: the json is missing.
        CocoError: see `check_coco`.
        ValueError: the json lacks a class of ``classes``.
    """

    def __init__(self, *args: Any, classes: Sequence[str] | None = None, **kwargs: Any) -> None:
        self.given_classes = None if classes is None else tuple(classes)
        super().__init__(*args, **kwargs)

    def load_data_list(self) -> list[dict]:
        """One dict an image; see mmdet's CocoDataset."""
        folder = self.data_prefix.get('img', '')
        content = read_coco(self.ann_file)
        found = check_coco(content, self.ann_file, folder)
        names = category_names(content)
        if self.given_classes is not None:
            unknown = [name for name in self.given_classes if name not in names.values()]
            if unknown:
                raise ValueError(
                    f'{self.ann_file} has no class {unknown[0]!r}; it has {list(names.values())}.'
                )
            names = {key: name for key, name in names.items() if name in self.given_classes}
        self.cat_ids = list(names)
        self.cat2label = {key: label for label, key in enumerate(names)}
        self._metainfo['classes'] = tuple(names.values())
        for ids, what in (
            (found.without_area, 'have no area'),
            (found.outside, 'leave their image'),
        ):
            if ids:
                print_log(
                    f'{len(ids)} of {found.boxes} boxes in {self.ann_file} {what}, e.g. that with '
                    f'the id {ids[0]}: {"left out" if ids is found.without_area else "cut"}.',
                    logger='current',
                    level=logging.WARNING,
                )
        self.settle_pixels([i['file_name'] for i in content['images']], self._path, folder)
        boxes: dict[Any, list[dict]] = {image['id']: [] for image in content['images']}
        for box in content['annotations']:
            boxes[box['image_id']].append({'area': box['bbox'][2] * box['bbox'][3], **box})
        self.cat_img_map: dict[Any, list] = {key: [] for key in names}
        for image, listed in boxes.items():
            for key in {box['category_id'] for box in listed} & self.cat_img_map.keys():
                self.cat_img_map[key].append(image)
        return [
            self.parse_data_info(
                dict(raw_img_info=image | dict(img_id=image['id']), raw_ann_info=boxes[image['id']])
            )
            for image in content['images']
        ]

    def _path(self, name: str) -> str:
        return f'{self.data_prefix.get("img", "")}/{name}'
