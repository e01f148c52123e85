"""What all tests share: deterministic Hypothesis, and the collection of acceptance rows for `make rows`."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("ci")

ROW_REPORT = "WATTPACT_ROW_REPORT"
"Name of the environment variable that holds the path where row outcomes are written."
_outcomes: dict[str, dict[str, str]] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call" or report.outcome != "passed":
        for marker in item.iter_markers("row"):
            for row in marker.args:
                _outcomes.setdefault(row, {})[item.nodeid] = report.outcome
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = os.environ.get(ROW_REPORT)
    if path:
        Path(path).write_text(json.dumps(_outcomes, indent=1, sort_keys=True))
