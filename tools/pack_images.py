"""Packs a folder of images into one file, for storage that is slow at many small ones.

    python tools/pack_images.py photos/ photos.tar

Image files are packed as they are, with their folders. `data_root='photos.tar'` then trains as the
folder does, bit for bit, and so does `python -m beitv2_mm pretrain photos.tar`.
"""

import argparse
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from beitv2_mm.datasets.packing import Faults


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('source', metavar='SOURCE', help='folder of images, in any subfolder')
    parser.add_argument('out', type=Path, metavar='OUT.tar', help='the pack')
    parser.add_argument('--force', action='store_true', help='replace OUT.tar')
    parser.add_argument(
        '--check', action='store_true', help='then read all images, and name the unreadable ones'
    )
    return parser.parse_args()


def progress(names: list[str]) -> Iterator[str]:
    """Yields the names and draws a bar, at most a thousand times."""
    from mmengine.utils import ProgressBar

    bar, step = ProgressBar(len(names), file=sys.stdout), -(-len(names) // 1000)
    for done, name in enumerate(names, 1):
        yield name
        if done % step == 0 or done == len(names):
            bar.update(done - bar.completed)
    print()


def report(faults: 'Faults', what: str) -> None:
    for error in faults.values():
        print(error, file=sys.stderr)
    counts = Counter(error.reason for error in faults.values()).most_common()
    reasons = ', '.join(f'{count} {reason}' for reason, count in counts)
    print(f'{len(faults)} images {what}{f" ({reasons})" if reasons else ""}')


def main() -> None:
    args = parse_args()
    from beitv2_mm.datasets.packing import check, pack

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the half file is removed, too
    try:
        report(pack(args.source, args.out, args.force, progress), 'were left out')
        if args.check:
            report(check(args.out, progress), 'in the pack cannot be read')
    except (OSError, ValueError) as error:
        sys.exit(f'pack_images.py: {error}')
    except KeyboardInterrupt:
        sys.exit('\npack_images.py: interrupted')
    print(
        f'{args.out}: {args.out.stat().st_size / 2**20:.1f} MiB. In a config, or after '
        f'--cfg-options:\n    train_dataloader.dataset.data_root={args.out.absolute()}'
    )


if __name__ == '__main__':
    main()
