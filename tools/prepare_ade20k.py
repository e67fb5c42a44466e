"""Checks ADE20K for the segmentation configs, and unpacks it from the official zip.

python tools/prepare_ade20k.py --root data/ade [--zip ADEChallengeData2016.zip]
"""

import argparse
from pathlib import Path

from mmengine.logging import MMLogger

from beitv2_mm.datasets.ade20k import NAME, URL, unpack, verify


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=f'Verify ROOT/{NAME}: 20210 training and 2000 validation images, their masks, '
        'sizes and labels.'
    )
    parser.add_argument('--root', default='data/ade', metavar='DIR', help='default: %(default)s')
    parser.add_argument('--zip', metavar='FILE', help=f'unpack this first; from {URL}')
    parser.add_argument(
        '--partial', action='store_true', help='accept another number of images than ADE20K has'
    )
    args = parser.parse_args(argv)
    MMLogger.get_instance('beitv2_mm')
    try:
        if args.zip:
            unpack(args.zip, args.root)
        verify(Path(args.root, NAME), complete=not args.partial)
    except (OSError, ValueError) as error:
        raise SystemExit(f'error: {error}') from error


if __name__ == '__main__':
    main()
