"""COCO's layout of boxes and masks, checked: the content of a json -> what is wrong with it."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

PARTS = dict(
    images=('id', 'file_name', 'height', 'width'),
    annotations=('id', 'image_id', 'category_id', 'bbox'),
    categories=('id', 'name'),
)


class CocoError(ValueError):
    """A json that no training should start with; the message names the file and a place in it."""


class Survey(NamedTuple):
    """What a json holds, and how often what is dropped or suspicious."""

    images: int
    boxes: int
    crowds: int
    empty_images: int
    classes: dict[str, int]  # name -> boxes, in the order of the category ids
    without_area: list[int]  # ids of annotations whose box has no area inside of its image: dropped
    outside: list[int]  # those that reach over the border: cut
    masks: Counter[str]  # 'polygons', 'RLE', 'none'


def read_coco(path: str | Path) -> dict[str, Any]:
    """The content of a json in COCO's layout; every entry has the keys that are needed.

    Raises:
        FileNotFoundError: there is no such file.
        CocoError: it is no json, or not in this layout.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'There is no file {path.absolute()} with boxes: check ann_file.')
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise CocoError(f'{path} is no json ({error}).') from error
    if not isinstance(content, dict):
        raise CocoError(f"{path} is not in COCO's layout: it holds a {type(content).__name__}.")
    for part, keys in PARTS.items():
        entries = content.get(part)
        if not isinstance(entries, list):
            raise CocoError(f'{path} is not in COCO\'s layout: it has no list "{part}".')
        for i, entry in enumerate(entries):
            lacking = [key for key in keys if not isinstance(entry, dict) or key not in entry]
            if lacking:
                raise CocoError(f'{path}: {part}[{i}] has no "{lacking[0]}".')
        ids = Counter(entry['id'] for entry in entries)
        twice = [key for key, count in ids.items() if count > 1]
        if twice:
            raise CocoError(f'{path}: the id {twice[0]!r} stands twice among the {part}.')
    return content


def category_names(content: dict[str, Any]) -> dict[Any, str]:
    """The name of each category id, in the order of the ids."""
    return {c['id']: c['name'] for c in sorted(content['categories'], key=lambda c: c['id'])}


def check_coco(content: dict[str, Any], path: str | Path, folder: str | Path) -> Survey:
    """Checks that images, boxes and categories belong together, and counts them.

    Args:
        content: of `read_coco`.
        path: of the json, for messages.
        folder: where the images are.

    Raises:
        CocoError: an image file is missing, a box belongs to an unknown image or category, or a
            mask is coded for another size than its image.
    """
    folder, images = Path(folder), {image['id']: image for image in content['images']}
    categories = category_names(content)
    if len(set(categories.values())) < len(categories):
        name = Counter(categories.values()).most_common(1)[0][0]
        raise CocoError(f'{path}: two categories have the name {name!r}.')
    absent = [i['file_name'] for i in images.values() if not (folder / i['file_name']).is_file()]
    if absent:
        raise CocoError(
            f'{path} names {len(absent)} of {len(images)} images that are not there, e.g. '
            f'{(folder / absent[0]).absolute()}. Check data_prefix, or take them out of the json.'
        )
    counts = Counter(dict.fromkeys(categories, 0))
    without_area, outside, masks, used, crowds = [], [], Counter[str](), set(), 0
    for box in content['annotations']:
        image = images.get(box['image_id'])
        if image is None:
            raise CocoError(
                f'{path}: box {box["id"]} is of the image {box["image_id"]!r}, which is not listed.'
            )
        if box['category_id'] not in categories:
            raise CocoError(
                f'{path}: box {box["id"]} has the category {box["category_id"]!r}; there are '
                f'{sorted(categories)}.'
            )
        used.add(box['image_id'])
        counts[box['category_id']] += 1
        crowds += bool(box.get('iscrowd'))
        masks[_mask_kind(box, image, path)] += 1
        inside = _inside(box['bbox'], image['height'], image['width'])
        if inside is False:
            without_area.append(box['id'])
        elif inside is None:
            outside.append(box['id'])
    return Survey(
        len(images),
        len(content['annotations']),
        crowds,
        len(images) - len(used),
        {name: counts[key] for key, name in categories.items()},
        without_area,
        outside,
        masks,
    )


def _inside(box: Sequence[float], height: int, width: int) -> bool | None:
    """Whether a box (left, top, width, height) lies in its image; None for a part of it, False for
    less than a pixel. A pixel over the border is forgiven: there are many ways to count."""
    left, top = box[:2]
    right, bottom = left + box[2], top + box[3]
    seen = min(right, width) - max(left, 0), min(bottom, height) - max(top, 0)
    if min(*seen, box[2] - 1, box[3] - 1) < 0 or min(seen) == 0:
        return False
    return True if min(left, top, width - right, height - bottom) >= -1 else None


def _mask_kind(box: dict, image: dict, path: str | Path) -> str:
    mask = box.get('segmentation')
    if not mask:
        return 'none'
    if isinstance(mask, list):
        short = [polygon for polygon in mask if len(polygon) < 6 or len(polygon) % 2]
        if short:
            raise CocoError(f'{path}: box {box["id"]} has a polygon of fewer than three points.')
        return 'polygons'
    if list(mask.get('size', ())) != [image['height'], image['width']]:
        raise CocoError(
            f'{path}: the mask of box {box["id"]} is coded for {mask.get("size")}, but its image '
            f'{image["file_name"]} has [{image["height"]}, {image["width"]}] (height, width).'
        )
    return 'RLE'
