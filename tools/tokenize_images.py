"""Codes of images by a trained visual tokenizer: files or folders in, one .npz out.

    python tools/tokenize_images.py photos/ --tokenizer vqkd_...-d5036aa7.pth --out codes.npz

The file holds `codes` (n, rows, columns), `files`, `unreadable` and `num_codes`. Images are cropped
to the tokenizer's aspect ratio and resized. An interrupted run is continued by the same command.
"""

import argparse
import os
import sys

from beitv2_mm.jobs import command_line as options


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('images', nargs='+', metavar='IMAGES', help='files, or folders of images')
    options.add_tokenizer(parser)
    parser.add_argument('--out', required=True, metavar='FILE.npz', help='where the codes go')
    parser.add_argument('--batch-size', type=int, default=64, help='images at once (%(default)s)')
    parser.add_argument(
        '--num-workers',
        type=int,
        default=min(4, (os.cpu_count() or 1) - 1),
        help='processes that read images (%(default)s)',
    )
    options.add_device(parser)
    return parser.parse_args()


def main() -> None:
    options.let_threads_sleep()
    args = parse_args()
    from mmengine.utils import ProgressBar

    from beitv2_mm.apis import build_tokenizer, find_images, tokenize_images

    try:
        files = find_images(args.images)
        tokenizer = build_tokenizer(args.tokenizer, args.config).to(args.device)
        bar = ProgressBar(len(files), file=sys.stdout)
        result = tokenize_images(
            files,
            tokenizer,
            args.out,
            args.batch_size,
            args.num_workers,
            progress=lambda count: bar.update(count) if count else None,
        )
    except (OSError, ValueError) as error:  # a mistake in what was given: its message is enough
        sys.exit(f'tokenize_images.py: {error}')
    except KeyboardInterrupt:
        sys.exit('\ntokenize_images.py: interrupted; the same command continues')
    for why in result.unreadable.values():
        print(f'\n{why}', end='', file=sys.stderr)
    count, rows, columns = result.codes.shape
    print(
        f'\n{count} images, {rows} x {columns} codes each, {len(result.unreadable)} unreadable: '
        f'{args.out}'
    )


if __name__ == '__main__':
    main()
