"""What the fuzzing tests share: how many examples, which errors may come out, damaged bytes."""

import contextlib
from collections.abc import Callable, Iterator

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

COUNTS = dict(
    adapt=1000, convert=1000, wrappers=500, files=1000, pickles=800, images=800, zips=600,
    tars=1800,
    idx=1000, options=1500,
)  # fmt: skip


def fuzz(name: str, **strategies: st.SearchStrategy) -> Callable:
    def decorate(test: Callable) -> Callable:
        chosen = settings(
            max_examples=COUNTS[name],
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],  # shrinking networks takes minutes
            report_multiple_bugs=False,
            print_blob=False,
        )
        return chosen(given(**strategies)(test))

    return decorate


@contextlib.contextmanager
def only(*errors: type[Exception]) -> Iterator[None]:
    """No other exception, and a message that fits a terminal and says something."""
    try:
        yield
    except errors as error:
        text = str(error)
        assert text and len(text) < 5000, text


EDITS = st.lists(
    st.tuples(st.integers(0, 10**6), st.sampled_from(['set', 'cut', 'insert', 'flip']),
              st.binary(min_size=1, max_size=8)),
    max_size=5,
)  # fmt: skip


def edited(content: bytes, edits: list[tuple]) -> bytes:
    result = bytearray(content)
    for position, action, data in edits:
        at = position % (len(result) + 1)
        if action == 'cut':
            del result[at:]
        elif action == 'insert':
            result[at:at] = data
        elif action == 'set':
            result[at : at + len(data)] = data
        elif at < len(result):
            result[at] ^= data[0]
    return bytes(result)
