"""All of a bundle is written, or nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from holdfast.runtime.bundle import writing
from holdfast.runtime.bundle.errors import BundleError
from holdfast.runtime.bundle.reading import load_bundle
from holdfast.runtime.bundle.writing import write_bundle


def test_an_existing_folder_is_kept_without_replace(bundle: Path, spec: dict[str, Any], files: Any) -> None:
    before = load_bundle(bundle).sha256
    with pytest.raises(BundleError, match="--force"):
        write_bundle(bundle, spec | {"name": "other"}, files)
    assert load_bundle(bundle).sha256 == before


def test_replace_exchanges_the_whole_bundle(bundle: Path, spec: dict[str, Any], files: Any) -> None:
    write_bundle(bundle, spec | {"name": "other"}, files, replace=True)
    assert load_bundle(bundle).spec.name == "other"
    assert [p.name for p in bundle.parent.iterdir()] == ["tiny.vla"]


def test_replace_never_removes_what_is_no_bundle(tmp_path: Path, spec: dict[str, Any], files: Any) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    with pytest.raises(BundleError, match="is no bundle"):
        write_bundle(tmp_path / "home", spec, files, replace=True)
    assert (tmp_path / "home" / "thesis.tex").exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interruption_leaves_nothing(
    tmp_path: Path, spec: dict[str, Any], files: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(_handle: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises((BundleError, KeyboardInterrupt)):
        write_bundle(tmp_path / "tiny.vla", spec, files)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("failure", "seen"),
    [(OSError(5, "Input/output error"), BundleError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_a_failed_replacement_keeps_the_old_bundle(
    bundle: Path,
    spec: dict[str, Any],
    files: Any,
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
    seen: type[BaseException],
) -> None:
    rename = Path.rename

    def fail_for_new(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise failure
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_new)
    with pytest.raises(seen, match="cannot be written" if seen is BundleError else None):
        write_bundle(bundle, spec | {"name": "other"}, files, replace=True)
    assert load_bundle(bundle).spec.name == "tiny"
    assert [p.name for p in bundle.parent.iterdir()] == ["tiny.vla"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "../x"}, "name"),
        ({"name": float("nan")}, "finite"),
        ({"name": b"bytes"}, "plain"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_contents_that_would_not_load_are_not_written(
    tmp_path: Path, spec: dict[str, Any], files: Any, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(BundleError, match=said):
        write_bundle(tmp_path / "tiny.vla", spec | change, files)
    assert list(tmp_path.iterdir()) == []


def test_reserved_names_and_missing_folders(tmp_path: Path, spec: dict[str, Any], files: Any) -> None:
    with pytest.raises(BundleError, match="made by write_bundle"):
        write_bundle(tmp_path / "tiny.vla", spec, files | {"bundle.json": b""})
    with pytest.raises(BundleError, match="does not exist"):
        write_bundle(tmp_path / "no" / "tiny.vla", spec, files)
    (tmp_path / "link.vla").symlink_to(tmp_path)
    with pytest.raises(BundleError, match="is a link"):
        writing.check_target(tmp_path / "link.vla", replace=True)


def test_what_the_disk_gives_back_is_checked(
    tmp_path: Path, spec: dict[str, Any], files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_write", lambda path, data: path.write_bytes(data[:-1]))
    with pytest.raises(BundleError, match="is damaged"):
        write_bundle(tmp_path / "tiny.vla", spec, files)
    assert list(tmp_path.iterdir()) == []


def test_contents_may_be_a_file(tmp_path: Path, spec: dict[str, Any], files: Any) -> None:
    """Weights of gigabytes are never held in memory."""
    source = tmp_path / "weights"
    source.write_bytes(b"weights" * 1000)
    spec["graphs"]["policy"]["data"] = ["graphs/policy.data"]
    bundle = load_bundle(write_bundle(tmp_path / "a.vla", spec, {**files, "graphs/policy.data": source}))
    assert bundle.read("graphs/policy.data") == source.read_bytes()
    with pytest.raises(BundleError, match=r"which is to become graphs/policy\.data, cannot be read"):
        write_bundle(tmp_path / "b.vla", spec, {**files, "graphs/policy.data": tmp_path / "absent"})
    assert not (tmp_path / "b.vla").exists()
