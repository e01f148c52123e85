"""What all tests share: deterministic Hypothesis, and the collection of acceptance rows for `make rows`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("ci")

ROW_REPORT = "WATTPACT_ROW_REPORT"
"Name of the environment variable that holds the path where row outcomes are written."
_outcomes: dict[str, dict[str, str]] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        rows = [row for marker in item.iter_markers("row") for row in marker.args]
        # A property travels with the report, also from the worker processes of xdist.
        item.user_properties.append(("rows", rows))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        for name, rows in report.user_properties:
            if name == "rows":
                assert isinstance(rows, list)
                for row in rows:
                    _outcomes.setdefault(row, {})[report.nodeid] = report.outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = os.environ.get(ROW_REPORT)
    if path and not hasattr(session.config, "workerinput"):
        Path(path).write_text(json.dumps(_outcomes, indent=1, sort_keys=True))
