"""A text config names the parts by the package's scope and imports nothing."""

import subprocess
import sys

import pytest

CODE = """
from mmengine.registry import DATASETS, METRICS, MODELS, TRANSFORMS
for registry, name in (
    (MODELS, 'ImageTextModel'), (MODELS, 'SentenceEncoder'), (DATASETS, 'ClassCaptions'),
    (TRANSFORMS, 'TokenizeCaption'), (METRICS, 'RetrievalMetric'),
):
    assert registry.get(f'beitv2_mm.{name}') is not None, name
"""


@pytest.mark.cpu_only(reason='nothing is computed')
def test_names_are_found() -> None:
    done = subprocess.run([sys.executable, '-c', CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
