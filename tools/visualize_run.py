"""One page of a run: curves, codebook usage, learning rate, latest pictures.

    python tools/visualize_run.py work_dirs/beitv2_small_1xb128_300e_folder

Writes WORK_DIR/run.html, as `RunPageHook` does during a training; for runs that went without it.
"""

import argparse
import sys


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('work_dir', nargs='+', metavar='WORK_DIR', help='of a training')
    folders = parser.parse_args().work_dir
    from beitv2_mm.visualization.run_page import write_run_page

    for work_dir in folders:
        try:
            print(write_run_page(work_dir))
        except OSError as error:
            sys.exit(f'visualize_run.py: {error}')


if __name__ == '__main__':
    main()
