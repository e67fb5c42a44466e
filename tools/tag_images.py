"""Words for images, from the codes of a visual tokenizer: a table and pictures.

    python tools/tag_images.py photos/ --tokenizer vqkd_...-d5036aa7.pth --words words.npz

words.npz holds `words` and `embeddings` in the space of the tokenizer's teacher; see
docs/guides/image_text.md on how to make it.
"""

import argparse
import sys
from pathlib import Path

from beitv2_mm.jobs import command_line as options


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('images', nargs='+', metavar='IMAGES', help='files, or folders of images')
    options.add_tokenizer(parser)
    parser.add_argument(
        '--words', required=True, metavar='FILE', help='.npz or .safetensors of words'
    )
    parser.add_argument(
        '--nothing',
        nargs='+',
        default=[],
        metavar='WORD',
        help='words of the file that stand for all else: where one fits best, no word is given',
    )
    parser.add_argument(
        '--threshold', type=float, default=-1.0, help='least cosine of a word (none)'
    )
    parser.add_argument(
        '--out', type=Path, default=Path('tags'), metavar='DIR', help='(%(default)s)'
    )
    options.add_device(parser)
    return parser.parse_args()


def main() -> None:
    options.let_threads_sleep()
    args = parse_args()
    from mmengine.utils import ProgressBar

    from beitv2_mm.apis import Tagger, build_tokenizer, find_images, tag_images
    from beitv2_mm.multimodal import read_words

    try:
        files, words = find_images(args.images), read_words(args.words)
        tokenizer = build_tokenizer(args.tokenizer, args.config).to(args.device)
        tagger = Tagger(tokenizer, words, args.nothing, args.threshold)
        bar = ProgressBar(len(files), file=sys.stdout)
        unreadable = tag_images(files, tagger, args.out, progress=bar.update)
    except (OSError, ValueError) as error:  # a mistake in what was given: its message is enough
        sys.exit(f'tag_images.py: {error}')
    for why in unreadable.values():
        print(f'\n{why}', end='', file=sys.stderr)
    print(f'\n{len(files)} images, {len(unreadable)} unreadable: {args.out}/tags.csv')


if __name__ == '__main__':
    main()
