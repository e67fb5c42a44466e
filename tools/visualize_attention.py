"""Self-attention of one patch, head by head: images in, pictures out.

    python tools/visualize_attention.py --model beit_base_patch16_224_8k_vocab --input_size 480 \\
        --pretrained_weights WEIGHTS.pth --image_path photo.jpg --selected_row 11 --selected_col 13

DIR/overview.png shows everything at once: the query patch, the mean of the heads, every head.
Beside it: img.png, select.png, attn-headN.png and mask_thT_headN.png. Several images get a folder
each. Weights may be of a classifier, a pretraining, a tokenizer or a segmentor, in any layout.
"""

import argparse
import sys

from beitv2_mm.jobs import command_line as options


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--model',
        default='beit_base_patch16_224',
        help='official name, arch (tiny, small, base, large), name of beitv2_mm.list_models, or '
        'config file (%(default)s)',
    )
    parser.add_argument(
        '--pretrained_weights',
        metavar='CKPT',
        help="file or URL; 'published' for those of a name of beitv2_mm.list_models; without, "
        'random ones',
    )
    parser.add_argument(
        '--image_path', nargs='+', required=True, metavar='IMAGES', help='files, or folders'
    )
    parser.add_argument(
        '--selected_row', type=int, help='row of the query patch, from 0 (the middle)'
    )
    parser.add_argument('--selected_col', type=int, help='its column, from 0 (the middle)')
    parser.add_argument(
        '--input_size',
        type=int,
        nargs='+',
        metavar='PIXELS',
        help='one number, or height and width (30 patches: 480 for patches of 16)',
    )
    parser.add_argument('--patch_size', type=int, help="pixels of a patch (the model's own)")
    parser.add_argument(
        '--checkpoint_key', metavar='KEY', help='key of the weights in the file (found)'
    )
    parser.add_argument('--output_dir', default='.', metavar='DIR', help='for the pictures (.)')
    parser.add_argument(
        '--threshold',
        type=float,
        default=0.6,
        help='share of the attention that the masks keep (%(default)s)',
    )
    parser.add_argument(
        '--disable_rel_pos_bias', action='store_true', help='leave the relative bias out'
    )
    unused = 'no effect, since the weights decide; taken for commands of the official script'
    parser.add_argument('--abs_pos_emb', action='store_true', help=unused)
    parser.add_argument('--layer_scale_init_value', type=float, help=unused)
    parser.add_argument(
        '--block', type=int, default=-1, help='from 0, or from the end: -1 (%(default)s)'
    )
    parser.add_argument(
        '--all-patches',
        action='store_true',
        help='also write all_patches.html: hover a patch, see its attention',
    )
    options.add_device(parser)
    args = parser.parse_args()
    if args.input_size and len(args.input_size) > 2:
        parser.error('--input_size is one number, or height and width')
    return args


def main() -> None:
    options.let_threads_sleep()
    args = parse_args()
    from mmengine.utils import ProgressBar

    from beitv2_mm.apis import build_attention_model, find_images, visualize_attention

    size = args.input_size
    try:
        files = find_images(args.image_path)
        model = build_attention_model(
            args.model,
            args.pretrained_weights,
            size if size is None else size[0] if len(size) == 1 else tuple(size),
            args.patch_size,
            args.checkpoint_key,
            args.disable_rel_pos_bias,
        )
        model.transformer.to(args.device)
        if model.is_random:
            print('No --pretrained_weights: the weights are RANDOM.', file=sys.stderr)
        bar = ProgressBar(len(files), file=sys.stdout)
        unreadable = visualize_attention(
            files,
            model,
            args.output_dir,
            args.selected_row,
            args.selected_col,
            args.threshold,
            args.block,
            args.all_patches,
            bar.update,
        )
    except (ImportError, OSError, ValueError) as error:  # what was given; its message is enough
        sys.exit(f'visualize_attention.py: {error}')
    except KeyboardInterrupt:
        sys.exit('\nvisualize_attention.py: interrupted; what is written stays')
    for why in unreadable.values():
        print(f'\nunreadable: {why}', end='', file=sys.stderr)
    if len(unreadable) == len(files):
        sys.exit('\nvisualize_attention.py: not one image can be read')
    print(f'\n{len(files) - len(unreadable)} images: {args.output_dir}')


if __name__ == '__main__':
    main()
