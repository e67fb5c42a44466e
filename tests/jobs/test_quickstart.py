"""The plan of the quickstart and what its command line refuses."""

from pathlib import Path

import pytest

from beitv2_mm.jobs.quickstart_settings import Options


def test_paths_that_cfg_options_would_misread() -> None:
    with pytest.raises(ValueError, match='--out may not contain'):
        Options(out=Path('my results'), data=Path('data'))
    with pytest.raises(ValueError, match='--data may not contain'):
        Options(out=Path('out'), data=Path('a,b'))


def test_at_least_one_seed() -> None:
    with pytest.raises(ValueError, match='at least 1'):
        Options(out=Path('out'), data=Path('data'), seeds=0)
