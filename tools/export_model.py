"""Write a model for other programs, as torch.export (.pt2) or ONNX (.onnx).

    python tools/export_model.py beitv2_base_patch16_224_pt1k_ft1k --out classifier.onnx
    python tools/export_model.py CONFIG.py --checkpoint TOKENIZER.pth --out codes.pt2

The graph takes RGB images in [0, 1], (B, 3, H, W), and normalises them itself; its results are
compared with the model's before the file is written.
"""

import argparse
import sys
from pathlib import Path

TASKS = ('classifier', 'features', 'codes', 'segmentor')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('model', help='a name of beitv2_mm.list_models, or a config file')
    parser.add_argument('--out', required=True, metavar='FILE', help='.pt2 or .onnx')
    parser.add_argument(
        '--checkpoint', metavar='CKPT', help='file or URL; the published weights without'
    )
    parser.add_argument('--task', choices=TASKS, help='where a model can do several')
    parser.add_argument(
        '--batch', type=int, metavar='B', help='the one batch size to take (any number of images)'
    )
    parser.add_argument(
        '--size', type=int, nargs=2, metavar=('H', 'W'), help="pixels (the model's own)"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from beitv2_mm.apis import get_model
    from beitv2_mm.apis.export import Exportable, ExportError, export
    from beitv2_mm.checkpoint import CheckpointError

    try:
        model = Exportable(get_model(args.model, args.checkpoint or True), args.task)
        size = tuple(args.size) if args.size else None
        worst = export(model, args.out, args.batch, size)
    except (ExportError, CheckpointError, OSError, ValueError) as error:
        sys.exit(f'export_model.py: {error}')
    megabytes = Path(args.out).stat().st_size / 1e6
    print(
        f'{args.out}: {model.task}, {megabytes:.1f} MB; largest difference to PyTorch {worst:.2g}'
    )


if __name__ == '__main__':
    main()
