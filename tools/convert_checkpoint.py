"""Convert weights of BEiT v2 between the layouts of this package, the official code, timm,
mmpretrain and transformers.

    python tools/convert_checkpoint.py beitv2_base_patch16_224_pt1k_ft1k.pth x.safetensors --to timm

SRC is recognised by itself; DST is a .pth or .safetensors, or for transformers a folder, which gets
config.json and model.safetensors. What has no place in the new layout is dropped and listed.
"""

import argparse
import sys

FORMATS = ('beitv2_mm', 'official', 'timm', 'mmpretrain', 'transformers')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('src', metavar='SRC', help='file or URL of any of the layouts')
    parser.add_argument('dst', metavar='DST', help='.pth or .safetensors, or a folder')
    parser.add_argument('--to', required=True, choices=FORMATS, help='layout of DST')
    parser.add_argument(
        '--grid',
        nargs=2,
        type=int,
        metavar=('ROWS', 'COLUMNS'),
        help='resize bias tables and position embeddings to this grid of patches',
    )
    parser.add_argument(
        '--source-grid',
        nargs=2,
        type=int,
        metavar=('ROWS', 'COLUMNS'),
        help='grid of patches of SRC; needed only where it is not square',
    )
    parser.add_argument(
        '--prefix', help="of the network's names in SRC (default: the one that is found)"
    )
    parser.add_argument(
        '--ema', action='store_true', help='take the moving average of the weights in SRC'
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from beitv2_mm.checkpoint import CheckpointError, convert_file

    grids = [tuple(grid) if grid else None for grid in (args.source_grid, args.grid)]
    try:
        print(convert_file(args.src, args.dst, args.to, *grids, args.prefix, args.ema))
    except CheckpointError as error:
        sys.exit(f'convert_checkpoint.py: {error}')


if __name__ == '__main__':
    main()
