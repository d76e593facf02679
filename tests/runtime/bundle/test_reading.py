"""A bundle is used whole and intact, or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.runtime.bundle.errors import BundleError
from holdfast.runtime.bundle.reading import MAX_JSON_BYTES, load_bundle, parse_spec, sum_line
from holdfast.runtime.bundle.writing import write_bundle

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def reseal(bundle: Path, raw: bytes) -> None:
    """Writes another bundle.json with a matching sum, as somebody would who edits one by hand."""
    (bundle / "bundle.json").write_bytes(raw)
    (bundle / "bundle.sha256").write_bytes(sum_line(hashlib.sha256(raw).hexdigest()))


def edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads((bundle / "bundle.json").read_text())
    change(data)
    reseal(bundle, json.dumps(data).encode())


def refusal(bundle: Path) -> str:
    with pytest.raises(BundleError) as caught:
        load_bundle(bundle)
    message = str(caught.value)
    assert "\n" not in message
    return message


def assert_loads_or_refuses(raw: bytes) -> None:
    try:
        parse_spec(raw)
    except BundleError as error:
        message = str(error)
    else:
        return
    assert message.encode().splitlines() == [message.encode()]


def test_an_intact_bundle_loads(bundle: Path, files: dict[str, bytes]) -> None:
    loaded = load_bundle(bundle)
    assert loaded.spec.name == "tiny"
    assert loaded.read("graphs/policy.onnx") == files["graphs/policy.onnx"]
    assert loaded.graph("policy") == files["graphs/policy.onnx"]
    assert loaded.sha256 == hashlib.sha256((bundle / "bundle.json").read_bytes()).hexdigest()


@QUICK
@given(data=st.data())
def test_any_flipped_bit_of_any_file_is_refused(shared_bundle: Path, data: st.DataObject) -> None:
    names = ["bundle.json", "bundle.sha256", "graphs/policy.onnx", "golden/observations.npz"]
    path = shared_bundle / data.draw(st.sampled_from(names))
    good = path.read_bytes()
    at = data.draw(st.integers(0, len(good) - 1))
    path.write_bytes(good[:at] + bytes([good[at] ^ 1 << data.draw(st.integers(0, 7))]) + good[at + 1 :])
    try:
        assert "is damaged" in refusal(shared_bundle)
    finally:
        path.write_bytes(good)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def _spots(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else []
    return [spot for key, item in items for spot in [(*path, key), *_spots(item, (*path, key))]]


@settings(QUICK, max_examples=200)
@given(data=st.data())
def test_mutated_json_loads_or_raises_bundle_error(shared_bundle: Path, data: st.DataObject) -> None:
    tree = json.loads((shared_bundle / "bundle.json").read_text())
    for _ in range(data.draw(st.integers(1, 3))):
        spots = _spots(tree)
        if not spots:
            break
        *path, key = data.draw(st.sampled_from(spots))
        parent = tree
        for step in path:
            parent = parent[step]
        if data.draw(st.booleans()):
            parent[key] = data.draw(_json)
        else:
            del parent[key]
    assert_loads_or_refuses(json.dumps(tree).encode())


@settings(QUICK)
@given(raw=st.binary(max_size=200))
def test_random_bytes_raise_bundle_error(raw: bytes) -> None:
    with pytest.raises(BundleError):
        parse_spec(raw)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b'{"format": "holdfast.bundle", "format": "holdfast.bundle"}', "'format' appears twice"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": 1e999}', "not finite"),
        (b'{"a": "\\ud800"}', "surrogates"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[" * 50 + b"]" * 50, "nested too deeply"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "digits"),
        (b"[]", "expected an object"),
        (b"\xff\xfe", "utf-8"),
        (b"", "cannot be parsed"),
        (b'{"format": "zip"}', "this is no bundle"),
        (b'{"format": "holdfast.bundle", "version": true}', "version True is not version 2"),
        (b'{"format": "holdfast.bundle", "version": 1}', "version 1 is not version 2"),
    ],
)
def test_what_json_allows_and_a_bundle_does_not(raw: bytes, said: str) -> None:
    with pytest.raises(BundleError, match=said):
        parse_spec(raw)


def test_an_edited_json_needs_its_sum(bundle: Path) -> None:
    path = bundle / "bundle.json"
    path.write_bytes(path.read_bytes().replace(b'"dt_s": 0.05', b'"dt_s": 0.06'))
    assert "bundle.sha256" in refusal(bundle)


def test_a_huge_json_is_not_parsed(bundle: Path) -> None:
    reseal(bundle, b" " * (MAX_JSON_BYTES + 1))
    assert "larger than 4 MiB" in refusal(bundle)


def _first_file(**values: object) -> Callable[[dict[str, Any]], object]:
    return lambda data: data["files"][0].update(values)


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "a/../../b", "a//b", ".hidden", "a/b/c", "a\x00b", ""]
)
def test_traversal_is_refused(bundle: Path, path: str) -> None:
    edit(bundle, _first_file(path=path))
    assert "files.0.path" in refusal(bundle)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_first_file(bytes=1 << 40), "over the 64 GiB allowed"),
        (_first_file(bytes=3), "has 42 bytes, bundle.json lists 3"),
        (_first_file(path="golden/other"), "not in `files`"),
        (lambda d: d["files"].append({**d["files"][0], "path": "absent"}), "absent is missing"),
        (lambda d: d["files"].append({**d["files"][0], "path": "bundle.json"}), "cannot vouch for itself"),
        (lambda d: d["files"].append(d["files"][0]), "listed twice"),
        (lambda d: d.update(files=d["files"] * 200), "files"),
        (lambda d: d.update(surprise=1), "surprise"),
        (lambda d: d["action"].update(steps=100_000), "over the 8000 allowed"),
        (lambda d: d["cameras"][0].update(width=10**9), "cameras.0.width"),
        (
            lambda d: d["cameras"][0].update(width=97),
            "graph policy takes image.front as uint8 [1, 96, 96, 3]",
        ),
        (lambda d: d["graphs"]["policy"]["inputs"][0].update(shape=[1 << 20] * 4), "over 268435456 elements"),
        (lambda d: d["task"].update(tokenizer=None), "takes 'tokens', which nothing gives"),
        (lambda d: d["parity"]["rows"][0].update(max_abs=2.0), "beyond its own limit"),
    ],
)
def test_contradictions_and_absurd_sizes(bundle: Path, change: Callable[[Any], object], said: str) -> None:
    edit(bundle, change)
    assert said in refusal(bundle)


def test_unlisted_files_and_folders_are_refused(bundle: Path) -> None:
    extra = bundle / "graphs" / "extra.bin"
    extra.write_bytes(b"x")
    assert "graphs/extra.bin is not listed" in refusal(bundle)
    extra.unlink()
    (bundle / "more").mkdir()
    assert "more is not listed" in refusal(bundle)


def test_links_and_pipes_are_refused(bundle: Path, tmp_path: Path) -> None:
    graph = bundle / "graphs" / "policy.onnx"
    outside = tmp_path / "policy.onnx"
    graph.rename(outside)
    graph.symlink_to(outside)
    assert "is a link" in refusal(bundle)
    graph.unlink()
    os.mkfifo(graph)
    assert "not a plain file" in refusal(bundle)


def test_a_linked_folder_is_refused(bundle: Path, tmp_path: Path) -> None:
    (bundle / "graphs").rename(tmp_path / "graphs")
    (bundle / "graphs").symlink_to(tmp_path / "graphs")
    assert "is a link" in refusal(bundle)


def test_a_missing_file_and_a_missing_bundle(bundle: Path, tmp_path: Path) -> None:
    (bundle / "golden" / "observations.npz").unlink()
    assert "observations.npz is missing" in refusal(bundle)
    assert "does not exist" in refusal(tmp_path / "nowhere.vla")
    (tmp_path / "file.vla").write_text("x")
    assert "not a bundle folder" in refusal(tmp_path / "file.vla")
    (tmp_path / "empty.vla").mkdir()
    assert "bundle.json is missing" in refusal(tmp_path / "empty.vla")


def test_a_file_changed_after_loading_is_noticed(bundle: Path) -> None:
    loaded = load_bundle(bundle)
    path = bundle / "graphs" / "policy.onnx"
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(BundleError, match="has changed since"):
        loaded.read("graphs/policy.onnx")
    with pytest.raises(BundleError, match="does not list"):
        loaded.read("../bundle.json")
    with pytest.raises(BundleError, match="no graph 'other'"):
        loaded.graph("other")


@pytest.mark.parametrize("part", ["graphs/policy.onnx", "graphs"])
def test_a_link_put_in_place_after_loading_is_not_followed(bundle: Path, tmp_path: Path, part: str) -> None:
    loaded = load_bundle(bundle)
    (bundle / part).rename(tmp_path / "elsewhere")
    (bundle / part).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="cannot be read"):
        loaded.read("graphs/policy.onnx")


@pytest.fixture
def with_data(tmp_path: Path, spec: dict[str, Any], files: dict[str, bytes]) -> Path:
    """A bundle whose graph has its weights in a file beside it."""
    spec["graphs"]["policy"]["data"] = ["graphs/policy.data"]
    return write_bundle(tmp_path / "data.vla", spec, {**files, "graphs/policy.data": b"weights" * 9})


def test_a_graph_with_data_files_is_given_by_its_path(with_data: Path) -> None:
    loaded = load_bundle(with_data)
    assert loaded.graph("policy") == with_data / "graphs" / "policy.onnx"
    loaded.check_unchanged("policy")


@pytest.mark.parametrize("name", ["graphs/policy.onnx", "graphs/policy.data"])
@pytest.mark.parametrize("how", ["written", "exchanged", "touched"])
def test_data_files_that_are_not_those_that_were_hashed(with_data: Path, name: str, how: str) -> None:
    loaded = load_bundle(with_data)
    path = with_data / name
    data = path.read_bytes()
    if how == "exchanged":
        path.rename(with_data.parent / "before")
    if how == "touched":
        os.utime(path, ns=(1, 1))
    else:
        path.write_bytes(data)
    with pytest.raises(BundleError, match="has changed since"):
        loaded.check_unchanged("policy")
    with pytest.raises(BundleError, match="has changed since"):
        loaded.graph("policy")


def test_damaged_data_is_refused(with_data: Path) -> None:
    path = with_data / "graphs" / "policy.data"
    path.write_bytes(path.read_bytes()[::-1])
    assert "does not have the sha256" in refusal(with_data)
    path.unlink()
    assert "policy.data is missing" in refusal(with_data)
