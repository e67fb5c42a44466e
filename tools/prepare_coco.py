"""Checks a json in COCO's layout and its images for the detection configs.

python tools/prepare_coco.py data/mine/annotations/train.json --images data/mine/images/train
"""

import argparse


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description='Count images, boxes, masks and classes; name boxes without area, images that '
        'cannot be read and images of another size than the json says. The exit status is 1 if '
        'there are any.'
    )
    parser.add_argument('json', help="boxes and masks in COCO's layout")
    parser.add_argument('--images', required=True, metavar='DIR', help='where the images are')
    args = parser.parse_args(argv)
    from mmengine.logging import MMLogger

    from beitv2_mm.datasets.prepare.coco import verify

    MMLogger.get_instance('beitv2_mm')
    try:
        faults = verify(args.json, args.images)
    except (OSError, ValueError) as error:
        raise SystemExit(f'error: {error}') from error
    raise SystemExit(1 if faults else 0)


if __name__ == '__main__':
    main()
