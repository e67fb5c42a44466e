"""Modules keep their old names for one version, with a warning that names the new one."""

import sys
from importlib import import_module

import pytest

from beitv2_mm.compat.moved import MOVED

pytestmark = pytest.mark.cpu_only(reason='imports, nothing is computed')


@pytest.mark.parametrize(('old', 'new'), MOVED.items())
def test_old_name_warns_and_has_what_the_new_one_has(
    old: str, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, old, raising=False)
    with pytest.warns(DeprecationWarning, match=f'{old} is now {new}'):
        module = import_module(old)
    content = import_module(new)
    public = [name for name in vars(content) if not name.startswith('_')]
    public += getattr(content, '__all__', [])  # some of them are imported when asked for
    assert public and all(hasattr(module, name) for name in public)
