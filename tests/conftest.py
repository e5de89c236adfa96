"""Fixtures that every test may ask for. They are written beside what they make."""

import contextlib
import gc
import os
import sys
import warnings
from collections.abc import Generator

import hypothesis
import pytest
from tests.pooler.fixtures import make_pooler, ours_only
from tests.postgres.fixtures import (
    any_postgres,
    certificates,
    fresh_postgres,
    make_postgres,
    postgres,
    postgres_tls,
)

# How long an example takes says how busy the machine is, and nothing else. CI tries the same examples every time: a run
# there judges a change, and new examples are looked for at the desk (and by `make fuzz`).
hypothesis.settings.register_profile("no-clock", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("no-clock")

__all__ = [
    "any_postgres",
    "certificates",
    "fresh_postgres",
    "make_pooler",
    "make_postgres",
    "ours_only",
    "postgres",
    "postgres_tls",
]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A failure is one test's, its own: what it left open lives on in its traceback, and would be reported where that goes."""
    before = item.session.testsfailed
    result = yield
    if item.session.testsfailed > before:
        for name in ("last_exc", "last_value", "last_traceback"):
            with contextlib.suppress(AttributeError):
                delattr(sys, name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What was logged may hold what no stream can write, since names are any bytes: a worker that hands it on would end."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report
