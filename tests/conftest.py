"""What every test may ask for, and what is left out where an optional library is missing."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

OPTIONAL = {"export": "torch", "sim": "mujoco"}
"""Marker -> the library without which its tests are skipped (the extras of pyproject.toml)."""

EXPORT_TIMEOUT_S = 400

REAL_TIME = ("e2e", "real_time")
"""Markers of tests whose processes keep deadlines. On a shared machine that stalls, a protective stop is the
right behaviour and no error: such a test is made a second time, and pytest says so ("rerun")."""


def _missing(library: str) -> bool:
    return importlib.util.find_spec(library) is None


# The tests of export import torch when they are collected.
collect_ignore = ["export"] if _missing("torch") else []


def pytest_configure() -> None:
    """A shell that runs the tests in the background, or under nohup, has these signals ignored, and every
    process started from here would inherit that; the tests send them."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bundle", help="an exported demo bundle; by default it is exported once (needs torch)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(item.get_closest_marker(marker) for marker in REAL_TIME):
            item.add_marker(pytest.mark.flaky(reruns=1))
    for marker, library in OPTIONAL.items():
        if _missing(library):
            skip = pytest.mark.skip(reason=f"needs {library} (extra `{marker}`)")
            for item in items:
                if item.get_closest_marker(marker):
                    item.add_marker(skip)


@pytest.fixture(scope="session")
def demo_bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped checkpoint as an fp16 bundle, exported by the real command once in a session."""
    given = request.config.getoption("--bundle")
    if given:
        return Path(given).resolve()
    if _missing("torch"):
        pytest.skip("needs torch to export the demo bundle; or give one with --bundle=PATH")
    folder = tmp_path_factory.mktemp("bundle")
    bundle = folder / "demo.vla"
    command = [sys.executable, "-m", "holdfast.export.cli", "--fp16", "demo", "--output", str(bundle)]
    # The last exported bundle is remembered for vla-run: a test must not change a person's.
    environment = {**os.environ, "XDG_STATE_HOME": str(folder / "state")}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=EXPORT_TIMEOUT_S,
        env=environment,
    )
    assert done.returncode == 0, f"vla-export failed ({done.returncode}):\n{done.stdout}\n{done.stderr}"
    return bundle
