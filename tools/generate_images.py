"""Generate images with a masked generator of codes, or fill the hole of an image.

    python tools/generate_images.py work_dirs/maskgit/config.py work_dirs/maskgit/epoch_4.pth \\
        --classes cat ship --count 8 --out generated
    python tools/generate_images.py CONFIG CHECKPOINT --inpaint photo.jpg --hole mask.png

The config in the work directory of the training names the tokenizer and the pixel decoder.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from beitv2_mm.jobs import command_line as options


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help="the generator's config file")
    parser.add_argument('checkpoint', help='its weights')
    parser.add_argument(
        '--classes', nargs='+', metavar='CLASS', help='names or numbers (images of no class)'
    )
    parser.add_argument(
        '--count', type=int, default=8, metavar='N', help='images of each class (%(default)s)'
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='of the first image, the others follow (%(default)s)'
    )
    parser.add_argument('--steps', type=int, help="sampling steps (the config's)")
    parser.add_argument(
        '--guidance', type=float, help="how much the class counts, 1 is no guidance (the config's)"
    )
    parser.add_argument('--temperature', type=float, help="more is more diverse (the config's)")
    parser.add_argument(
        '--grid', type=int, nargs=2, metavar=('ROWS', 'COLUMNS'), help='patches (those of training)'
    )
    parser.add_argument('--inpaint', type=Path, metavar='IMAGE', help='keep what is seen of it')
    parser.add_argument(
        '--hole', type=Path, metavar='MASK', help='with --inpaint: white pixels are painted'
    )
    parser.add_argument(
        '--outpaint', type=int, metavar='PIXELS', help='with --inpaint: paint a border around it'
    )
    parser.add_argument('--out', type=Path, default=Path('generated'), metavar='DIR')
    options.add_device(parser)
    args = parser.parse_args()
    if args.count < 1:
        parser.error(f'--count is at least 1, but {args.count} was given')
    if (args.inpaint is None) != (args.hole is None and args.outpaint is None):
        parser.error('--inpaint needs --hole or --outpaint, and they need --inpaint')
    if args.hole is not None and args.outpaint is not None:
        parser.error('give --hole or --outpaint, not both')
    return args


def main() -> None:
    options.let_threads_sleep()
    args = parse_args()
    with options.quick_imports():
        from mmengine.utils import ProgressBar

        from beitv2_mm.apis import ImageGenerator, read_hole, write_samples

    try:
        generator = ImageGenerator(args.config, args.checkpoint, args.device)
        names = args.classes or [None]
        labels = [generator.label(name) for name in args.classes or () for _ in range(args.count)]
        seeds = [args.seed + i for i in range(len(names) * args.count)]
        sampling: dict[str, Any] = {
            name: value
            for name in ('steps', 'guidance', 'temperature')
            if (value := getattr(args, name)) is not None
        }
        seen, bar = None, ProgressBar(len(seeds), file=sys.stdout)
        if args.inpaint is not None:
            tokenizer = generator.model.tokenizer
            seen = read_hole(args.inpaint, tokenizer, args.hole, args.outpaint or 0)
            images = generator.inpaint(*seen, labels or None, seeds, bar.update, **sampling)
        else:
            grid = tuple(args.grid) if args.grid else None
            images = generator.generate(labels or None, seeds, bar.update, grid=grid, **sampling)
        titles = [generator.classes[label] for label in labels] or [''] * len(seeds)
        columns = args.count if 1 < args.count <= 10 else 10  # a class in each row
        write_samples(images, titles, seeds, args.out, columns + (seen is not None), seen)
    except (OSError, ValueError) as error:  # a mistake in what was given: its message is enough
        sys.exit(f'generate_images.py: {error}')
    print(f'\n{len(images)} images: {args.out / "samples.png"}')


if __name__ == '__main__':
    main()
