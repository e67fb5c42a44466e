"""Checks images with captions before a training meets them, and makes a tokenizer of their words.

    python tools/prepare_captions.py data/mine/captions.csv --images data/mine/images
    python tools/prepare_captions.py data/mine/captions.csv --images data/mine/images \
        --write-tokenizer data/mine/tokenizer.json

Every image is read. The exit status is 1 where something is wrong.
"""

import argparse
import sys
from pathlib import Path


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'captions', type=Path, metavar='FILE', help="CSV (file, caption), or COCO's captions json"
    )
    parser.add_argument('--images', type=Path, required=True, metavar='DIR', help='the images')
    parser.add_argument(
        '--tokenizer', metavar='FILE', help='a tokenizer.json, or minilm: name its unknown words'
    )
    parser.add_argument(
        '--write-tokenizer', type=Path, metavar='FILE', help='where a tokenizer of these words goes'
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from mmengine.logging import MMLogger

    from beitv2_mm.multimodal.checking import verify
    from beitv2_mm.multimodal.text_encoder import train_tokenizer

    MMLogger.get_instance('beitv2_mm')
    try:
        captions, faults = verify(args.captions, args.images, args.tokenizer)
        if args.write_tokenizer:
            train_tokenizer(captions, args.write_tokenizer)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f'prepare_captions.py: {error}')
    sys.exit(1 if faults else 0)


if __name__ == '__main__':
    main()
