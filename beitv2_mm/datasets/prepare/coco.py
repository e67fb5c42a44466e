"""A json in COCO's layout and its images, checked before a training meets them."""

from pathlib import Path

from mmengine.logging import print_log

from beitv2_mm.datasets.coco_layout import check_coco, read_coco
from beitv2_mm.datasets.prepare import progress
from beitv2_mm.datasets.reading import UnreadableImageError, read_image

SHOWN = 5  # names of each kind of fault


def verify(path: str | Path, folder: str | Path) -> int:
    """Reads the json and every image, logs what they hold, and returns the number of faults.

    Faults are boxes without area, and images that cannot be read or have another size than the json
    says. A training leaves both out; boxes that leave their image are cut and do not count.

    Raises:
        FileNotFoundError, CocoError: see `read_coco` and `check_coco`.
    """
    content = read_coco(path)
    found = check_coco(content, path, folder)
    kinds = ', '.join(f'{count} {kind}' for kind, count in found.masks.most_common())
    _say(
        f'{path}: {found.images} images, {found.empty_images} of them without boxes; '
        f'{found.boxes} boxes, {found.crowds} of them crowds; masks: {kinds or "none"}.'
    )
    widest = max(map(len, found.classes), default=0)
    _say('\n'.join(f'{name:<{widest}}  {count:>8}' for name, count in found.classes.items()))
    unused = [name for name, count in found.classes.items() if not count]
    if unused:
        _say(f'{len(unused)} classes have no box, e.g. {unused[0]}.')
    if found.outside:
        _say(f'{len(found.outside)} boxes leave their image, e.g. {found.outside[:SHOWN]}: cut.')
    faults = {'boxes have no area, with the ids': list(map(str, found.without_area))}
    faults['images'] = []
    for image in progress(content['images'], 'images: read '):
        file = Path(folder, image['file_name'])
        try:
            height, width = read_image(file).shape[:2]
        except UnreadableImageError as error:
            faults['images'].append(str(error))
            continue
        if (height, width) != (image['height'], image['width']):
            faults['images'].append(
                f'{file} has {height} x {width} pixels, height x width, the json says '
                f'{image["height"]} x {image["width"]}'
            )
    for what, names in faults.items():
        if names:
            rest = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
            _say(
                f'{len(names)} {what}: {"; ".join(names[:SHOWN])}{rest}. Training leaves them out.'
            )
    return sum(map(len, faults.values()))


def _say(text: str) -> None:
    print_log(text, logger='current')
