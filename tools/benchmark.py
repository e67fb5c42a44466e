"""Time and memory of this package and its installed peers on the same work.

    python tools/benchmark.py pretrain                        # base, batch 4, all cores
    python tools/benchmark.py backbone --device cuda --precision bf16 --compile --batch-size 128
    python tools/benchmark.py data --images DIR --json data.json --plot data.png

Implementations get equal weights, their results are compared first, and they take turns; figures
are medians. `of the limit`: the time that an implementation's own matrix products take with nothing
in between, measured in the same turns, as a share of its time. Peak memory is what PyTorch
allocates on top of weights, inputs and the optimizer's state.
"""

import argparse
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from beitv2_mm.jobs import command_line as options

if TYPE_CHECKING:
    from beitv2_mm.benchmark import Settings

SUITES = ('backbone', 'pretrain', 'tokenizer', 'segment', 'data', 'memory', 'scaling')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('suite', choices=SUITES, help='what to measure')
    parser.add_argument(
        '--arch',
        choices=('tiny', 'small', 'base', 'large'),
        default='base',
        help='network (%(default)s)',
    )
    parser.add_argument(
        '--image-size', type=int, nargs='+', metavar='PX', help='sizes in place of the usual ones'
    )
    parser.add_argument('--batch-size', type=int, help='images at once (4; quantizer 8, UPerNet 1)')
    parser.add_argument('--num-codes', type=int, default=8192, help='codebook (%(default)s)')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu', help='(%(default)s)')
    parser.add_argument('--precision', choices=('fp32', 'bf16'), default='fp32', help='(fp32)')
    parser.add_argument('--compile', action='store_true', help='torch.compile every network')
    parser.add_argument(
        '--keep-memory',
        action='store_true',
        help='let glibc keep freed memory for all implementations, as our tools do on a CPU',
    )
    parser.add_argument('--rounds', type=int, default=5, help='turns of each (%(default)s)')
    parser.add_argument(
        '--threads', type=int, default=os.cpu_count(), help='of PyTorch on a CPU (%(default)s)'
    )
    parser.add_argument(
        '--images', metavar='DIR', help='JPEG files for `data`, instead of generated ones'
    )
    parser.add_argument(
        '--index-size', type=int, default=1_200_000, help='paths for `memory` (%(default)s)'
    )
    parser.add_argument(
        '--workers',
        type=int,
        nargs='+',
        default=[1, 16],
        help='numbers of loader workers, for `data` and `memory`',
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the rows')
    parser.add_argument('--plot', type=Path, metavar='FILE', help='write a picture (.png, .svg)')
    return parser.parse_args()


def check_device(settings: 'Settings') -> None:
    """Raises ValueError if the device is missing, or has no bfloat16 and needs it."""
    from beitv2_mm.engine.precision import supports_bfloat16

    try:
        options.device(settings.device)
    except argparse.ArgumentTypeError as error:
        raise ValueError(f'--device: {error}') from error
    if settings.precision == 'bf16' and settings.device != 'cpu' and not supports_bfloat16():
        raise ValueError('this GPU has no bfloat16 (compute capability 8.0): --precision fp32')


def main() -> None:
    args = vars(parse_args())
    import torch
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from beitv2_mm.benchmark import (
        SUITES,
        NotTheSameError,
        Row,
        Settings,
        machine,
        measure,
        plot,
        table,
        to_json,
    )
    from beitv2_mm.benchmark.feed import count_feed_steps, measure_feed
    from beitv2_mm.benchmark.measure import count_steps, quiet
    from beitv2_mm.engine.launch import keep_freed_memory

    name, json, picture = args.pop('suite'), args.pop('json'), args.pop('plot')
    quiet()
    lists = {key: tuple(args.pop(key) or ()) for key in ('image_size', 'workers')}
    settings = Settings(**args, **lists)
    if settings.keep_memory:
        keep_freed_memory()
    torch.backends.cuda.matmul.allow_tf32 = settings.precision != 'fp32'
    works = SUITES[name](settings)
    feeds = count_feed_steps(settings) if name == 'data' else 0
    rows: list[Row] = []
    console = Console()
    if not console.is_terminal:
        console.width = 120
    columns = (TextColumn('{task.description}'), BarColumn(20), MofNCompleteColumn())
    try:
        check_device(settings)
        with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
            task = bar.add_task('', total=sum(map(count_steps, works)) + feeds)
            for work in works:
                bar.update(task, description=work.name)
                rows += measure(work, partial(bar.advance, task))
            if feeds:
                bar.update(task, description='loader and model')
                feed = measure_feed(settings, partial(bar.advance, task))
    except (NotTheSameError, OSError, ValueError) as error:
        sys.exit(f'benchmark.py: {error}')
    console.print(table(rows))
    if feeds:
        console.print(feed.table())
    console.print(machine(settings))
    if json:
        to_json(rows, settings, json)
    if picture:
        plot(rows, settings, picture)


if __name__ == '__main__':
    main()
