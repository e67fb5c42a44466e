"""Pictures of codes: images beside their codes, patches grouped by code, usage of the codebook.

    python tools/visualize_codes.py photos/ --tokenizer vqkd_...-d5036aa7.pth --out codes
    python tools/visualize_codes.py photos/ --tokenizer TOKENIZER.pth --config TOKENIZER.py \\
        --pretraining PRETRAINING.py --pretraining-weights PRETRAINED.pth --out codes

DIR/codes.html shows everything. With a pretraining also what it predicts of hidden patches.
"""

import argparse
import sys

from beitv2_mm.jobs import command_line as options


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('images', nargs='+', metavar='IMAGES', help='files, or folders of images')
    options.add_tokenizer(parser)
    parser.add_argument('--out', required=True, metavar='DIR', help='where the pictures go')
    parser.add_argument(
        '--pretraining',
        metavar='CONFIG',
        help='config file, or name of a published model, of a pretraining with that tokenizer',
    )
    parser.add_argument('--pretraining-weights', metavar='CKPT', help='its file or URL')
    parser.add_argument(
        '--max-images', type=int, default=500, help='images read, at equal steps (%(default)s)'
    )
    parser.add_argument('--maps', type=int, default=8, help='images shown (%(default)s)')
    parser.add_argument('--groups', type=int, default=16, help='codes in the atlas (%(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of masks and patches (%(default)s)')
    options.add_device(parser)
    args = parser.parse_args()
    if bool(args.pretraining) != bool(args.pretraining_weights):
        parser.error('--pretraining and --pretraining-weights belong together')
    if min(args.max_images, args.maps, args.groups) < 1:
        parser.error('--max-images, --maps and --groups are at least 1')
    return args


def main() -> None:
    options.let_threads_sleep()
    args = parse_args()
    from mmengine.utils import ProgressBar

    from beitv2_mm.apis import build_pretrainer, build_tokenizer, find_images, visualize_codes

    try:
        files = find_images(args.images)
        tokenizer = build_tokenizer(args.tokenizer, args.config).to(args.device)
        pretrainer = None
        if args.pretraining:
            pretrainer = build_pretrainer(args.pretraining, args.pretraining_weights, tokenizer)
            pretrainer.to(args.device)
        bar = ProgressBar(min(len(files), args.max_images), file=sys.stdout)
        unreadable = visualize_codes(
            files,
            tokenizer,
            args.out,
            pretrainer,
            args.maps,
            args.groups,
            args.max_images,
            args.seed,
            bar.update,
        )
    except (ImportError, OSError, ValueError) as error:  # what was given; its message is enough
        sys.exit(f'visualize_codes.py: {error}')
    except KeyboardInterrupt:
        sys.exit('\nvisualize_codes.py: interrupted')
    for why in unreadable.values():
        print(f'\nunreadable: {why}', end='', file=sys.stderr)
    print(f'\n{args.out}/codes.html')


if __name__ == '__main__':
    main()
