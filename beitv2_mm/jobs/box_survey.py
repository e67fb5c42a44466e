"""A survey of a folder of images and a json in COCO's layout: classes, split for validation."""

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from mmengine.utils import track_iter_progress

from beitv2_mm.checkpoint.atomic import write_atomic
from beitv2_mm.datasets.coco_layout import category_names, check_coco, read_coco
from beitv2_mm.datasets.reading import UnreadableImageError, read_image
from beitv2_mm.datasets.sampling import sample
from beitv2_mm.jobs.options import JSONS
from beitv2_mm.jobs.survey import FolderError, held_out, median_side

SUBSETS = ('train', 'val')
EXPECTED = (
    "Expected is one json in COCO's layout in FOLDER or FOLDER/annotations, or two with train and "
    'val in their names, and the images in FOLDER/images or FOLDER/images/train and val.'
)
Content = dict[str, Any]  # of a json in COCO's layout


@dataclass(frozen=True)
class BoxSurvey:
    """What is known of a folder; names of images are relative to it."""

    folder: Path
    classes: tuple[str, ...]
    train: Content
    val: Content
    masks: bool  # whether every object has one
    short_side: int  # pixels, the median of a sample

    def describe(self) -> str:
        """The survey in a line."""
        names = ', '.join(self.classes[:5]) + (', ...' if self.classes[5:] else '')
        parts = self.train, self.val
        objects = sum(len(part['annotations']) for part in parts)
        return (
            f'{sum(len(part["images"]) for part in parts)} images, {objects} objects '
            f'{"with" if self.masks else "without"} masks, {len(self.classes)} classes ({names}), '
            f'{self.short_side} px on the short side'
        )

    def write(self, out: Path) -> None:
        """Writes ``out/train.json`` and ``out/val.json``."""
        for name, content in zip(JSONS, (self.train, self.val), strict=True):
            write_atomic(out / name, json.dumps(content).encode())


def survey_boxes(folder: Path) -> BoxSurvey:
    """Reads and checks the json, finds the images, and reads those to validate on.

    Two jsons with train and val in their names are kept apart; of one, a tenth of the images, drawn
    at random, validates.

    Raises:
        FolderError: json or images are missing, the two name other classes, or no image can be
            read.
        CocoError: see `beitv2_mm.datasets.coco_layout`.
    """
    parts = [_placed(folder, path) for path in _jsons(folder)]
    if len(parts) == 1:
        train, val = _split(parts[0])
    else:
        train, val = parts
        if category_names(train) != category_names(val):
            raise FolderError(
                f'The two jsons in {folder} differ in their categories, ids or names: the labels '
                'of one would mean other classes in the other.'
            )
    val = _readable(folder, val)
    annotated = [box for box in train['annotations'] if not box.get('iscrowd')]
    for boxes, purpose in ((annotated, 'train'), (val['annotations'], 'validate')):
        if not boxes:
            raise FolderError(f'There is not one box to {purpose} on in {folder}.')
    masks = all(box.get('segmentation') for box in annotated)
    files = sample([str(folder / image['file_name']) for image in train['images']])
    side = median_side(files, str(folder))
    return BoxSurvey(folder, tuple(category_names(train).values()), train, val, masks, side)


def _jsons(folder: Path) -> list[Path]:
    """One json, or those to train and to validate on."""
    if not folder.is_dir():
        raise FolderError(f'There is no folder {folder.absolute()}. {EXPECTED}')
    found = sorted([*folder.glob('*.json'), *folder.glob('annotations/*.json')])
    if len(found) > 1:  # COCO itself has captions and keypoints, too
        found = [path for path in found if path.stem.startswith('instances')] or found
    pair = [[path for path in found if subset in path.stem] for subset in SUBSETS]
    if len(found) == 1:
        return found
    if [len(paths) for paths in pair] == [1, 1]:
        return [pair[0][0], pair[1][0]]
    names = ', '.join(str(path.relative_to(folder)) for path in found) or 'none'
    raise FolderError(f'{folder} has these jsons: {names}. {EXPECTED}')


def _placed(folder: Path, path: Path) -> Content:
    """The checked content of a json, with names of images relative to the folder."""
    content = read_coco(path)
    if len(content['images']) < 2:
        raise FolderError(f'{path} lists {len(content["images"])} images. {EXPECTED}')
    subset = next((subset for subset in SUBSETS if subset in path.stem), '')
    last = path.stem.split('_')[-1]  # 'train2017' of COCO's own names
    tried = [Path(*parts) for parts in (
        ('images', subset), (subset,), ('images', last), (last,), ('images',), (),
    )]  # fmt: skip
    first = content['images'][0]['file_name']
    place = next((place for place in tried if (folder / place / first).is_file()), None)
    if place is None:
        raise FolderError(f'{path} names {first}, which is not in {folder}. {EXPECTED}')
    check_coco(content, path, folder / place)
    for image in content['images']:
        image['file_name'] = os.path.normpath(place / image['file_name'])
    return content


def _split(content: Content) -> tuple[Content, Content]:
    val = held_out([image['file_name'] for image in content['images']])
    train = [image for image in content['images'] if image['file_name'] not in val]
    return _only(content, train), _only(
        content, [image for image in content['images'] if image['file_name'] in val]
    )


def _only(content: Content, images: Sequence[Content]) -> Content:
    """The content with some of its images."""
    ids = {image['id'] for image in images}
    boxes = [box for box in content['annotations'] if box['image_id'] in ids]
    return content | dict(images=list(images), annotations=boxes)


def _readable(folder: Path, content: Content) -> Content:
    """The content without images that cannot be read or have another size than the json says; a
    training skips them, but a validation would stop at them."""
    readable = []
    for image in track_iter_progress(content['images']):
        path = folder / image['file_name']
        try:
            size = list(read_image(path).shape[:2])
        except UnreadableImageError as error:
            print_log(f'{error}: left out of the validation.', 'current', logging.WARNING)
            continue
        if size != [image['height'], image['width']]:
            print_log(
                f'{path} has {size} pixels, height and width, the json says '
                f'[{image["height"]}, {image["width"]}]: left out of the validation.',
                'current',
                logging.WARNING,
            )
            continue
        readable.append(image)
    if not readable:
        raise FolderError(f'Not one of the images of {folder} to validate on can be read.')
    return _only(content, readable)
