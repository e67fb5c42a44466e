"""`python -m beitv2_mm`: versions, fixes, and what is missing for which task."""

import sys

import pytest
import torch

import beitv2_mm
from beitv2_mm import compat
from beitv2_mm.__main__ import main
from beitv2_mm.compat.environment import Task, describe, missing

pytestmark = pytest.mark.cpu_only(reason='settings and sizes, nothing is computed')


def test_the_page_names_versions_fixes_and_tasks() -> None:
    page = describe()
    assert beitv2_mm.__version__ in page and torch.__version__.split('+')[0] in page
    for name in compat.active():
        assert name in page
    stand_ins = 'nms, softnms, roi_align, sigmoid_focal_loss, ms_deform_attn: by torchvision'
    assert (stand_ins in page) == ('missing_compiled_ops' in compat.active())
    assert 'Ready for' in page and 'segmentation' in page


def test_what_is_missing_comes_with_its_extra(monkeypatch) -> None:
    task = Task('fly', ('torch', 'no_such_module'), 'wings')
    assert missing(task) == ['no_such_module']
    monkeypatch.setattr('beitv2_mm.compat.environment.TASKS', (task,))
    assert 'no, no_such_module missing: pip install "beitv2_mm[wings]"' in describe()


def test_the_module_prints_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, 'argv', ['beitv2_mm'])
    main()
    assert capsys.readouterr().out.strip() == describe()
