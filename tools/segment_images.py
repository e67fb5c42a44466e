"""Segments images: files or folders in, coloured overlays with a legend and label maps out.

    python tools/segment_images.py photos/ --config configs/segmentation/CONFIG.py \\
        --checkpoint CKPT --out segmented

OUT/labels holds palette PNGs whose values are the labels, OUT/overlays the pictures to look at.
"""

import argparse
import sys

from beitv2_mm.jobs import command_line as options


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('images', nargs='+', metavar='IMAGES', help='files, or folders of images')
    parser.add_argument(
        '--config', required=True, help='config file, or the name of a published model'
    )
    parser.add_argument(
        '--checkpoint',
        metavar='CKPT',
        help='file or URL: own or official; a published model knows its own',
    )
    parser.add_argument('--out', required=True, metavar='DIR', help='where the pictures go')
    parser.add_argument(
        '--opacity', type=float, default=0.5, help='of the colours, 0 to 1 (%(default)s)'
    )
    parser.add_argument(
        '--windows-per-batch',
        type=int,
        help='sliding windows at once: fewer need less memory (8)',
    )
    options.add_device(parser)
    args = parser.parse_args()
    if not 0 <= args.opacity <= 1:
        parser.error(f'--opacity is between 0 and 1: {args.opacity}')
    return args


def main() -> None:
    options.let_threads_sleep()
    args = parse_args()
    from mmengine.utils import ProgressBar

    from beitv2_mm.apis import SegmentationInferencer, find_images, segment_images

    settings = {}
    if args.windows_per_batch:
        settings = dict(test_cfg=dict(windows_per_batch=args.windows_per_batch))
    try:
        files = find_images(args.images)
        inferencer = SegmentationInferencer(
            args.config, args.checkpoint or True, args.device, **settings
        )
        bar = ProgressBar(len(files), file=sys.stdout)
        unreadable = segment_images(files, inferencer, args.out, args.opacity, bar.update)
    except (ImportError, OSError, ValueError) as error:  # what was given; its message is enough
        sys.exit(f'segment_images.py: {error}')
    except KeyboardInterrupt:
        sys.exit('\nsegment_images.py: interrupted; what is written stays')
    for why in unreadable.values():
        print(f'\n{why}', end='', file=sys.stderr)
    print(f'\n{len(files) - len(unreadable)} images, {len(unreadable)} unreadable: {args.out}')


if __name__ == '__main__':
    main()
