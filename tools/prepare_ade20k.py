"""Checks ADE20K for the segmentation configs, and unpacks it from the official zip.

python tools/prepare_ade20k.py --root data/ade [--zip ADEChallengeData2016.zip]
"""

import argparse
from pathlib import Path


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description='Verify ROOT/ADEChallengeData2016: 20210 training and 2000 validation images, '
        'their masks, sizes and labels.'
    )
    parser.add_argument('--root', default='data/ade', metavar='DIR', help='default: %(default)s')
    parser.add_argument(
        '--zip',
        metavar='FILE',
        help='unpack this archive first; it is at '
        'http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip',
    )
    parser.add_argument(
        '--partial', action='store_true', help='accept another number of images than ADE20K has'
    )
    args = parser.parse_args(argv)
    from mmengine.logging import MMLogger

    from beitv2_mm.datasets.prepare.ade20k import NAME, unpack, verify

    MMLogger.get_instance('beitv2_mm')
    try:
        if args.zip:
            unpack(args.zip, args.root)
        verify(Path(args.root, NAME), complete=not args.partial)
    except (OSError, ValueError) as error:
        raise SystemExit(f'error: {error}') from error


if __name__ == '__main__':
    main()
