"""Writes composites, real Fashion-MNIST items pasted on real CIFAR-10 pictures, and their masks.

python tools/prepare_composites.py --cifar data/cifar10 --out data/composites
"""

import argparse


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description='Write composites as OUT/{images,masks}/{train,val,test}/<index>.png. Masks '
        'are exact: 0 is background, 1 to 10 are the items (OUT/classes.txt).'
    )
    parser.add_argument('--out', required=True, metavar='DIR', help='where they go')
    parser.add_argument(
        '--cifar', required=True, metavar='DIR', help='what tools/prepare_cifar10.py wrote'
    )
    parser.add_argument(
        '--fashion',
        default='auto',
        metavar='DIR|download|auto',
        help="folder of Fashion-MNIST's idx files, or torchvision's download; auto: the installed "
        'Debian package dataset-fashion-mnist, else the download, else that package fetched',
    )
    parser.add_argument(
        '--counts',
        type=int,
        nargs=3,
        default=[4000, 500, 1000],
        metavar=('TRAIN', 'VAL', 'TEST'),
        help='default: %(default)s',
    )
    parser.add_argument('--seed', type=int, default=0)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        '--captions',
        dest='kind',
        action='store_const',
        const='captions',
        help='for image and text: what each shows in OUT/captions/{train,val,test}.csv, and 20 of '
        '100 combinations kept from training',
    )
    kind.add_argument(
        '--scenes',
        dest='kind',
        action='store_const',
        const='scenes',
        help='for detection: 64-pixel pictures with one to four overlapping items, their boxes and '
        'masks in OUT/annotations/{train,val,test}.json (COCO)',
    )
    args = parser.parse_args(argv)
    from mmengine.logging import MMLogger

    from beitv2_mm.datasets.prepare.composites import prepare

    MMLogger.get_instance('beitv2_mm')
    try:
        kind = args.kind or 'masks'
        prepare(args.out, args.cifar, args.fashion, tuple(args.counts), args.seed, kind)
    except (OSError, RuntimeError, ValueError) as error:
        raise SystemExit(f'error: {error}') from error


if __name__ == '__main__':
    main()
