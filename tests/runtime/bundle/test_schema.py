"""Programs and their wiring: every graph input has one source, by name, or the bundle is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from holdfast.runtime.bundle.schema import VERSION, Bundle, TextIntegers

from .conftest import make_spec
from .programs import (
    CACHE,
    MASK,
    TOKENS,
    diffusion_spec,
    flow_spec,
    make_pose,
    tensor,
    tokens_spec,
    validate,
)

Spec = dict[str, Any]
Make = Callable[[], Spec]
ALL: dict[str, Make] = {
    "single": make_spec,
    "flow": flow_spec,
    "guided": lambda: flow_spec(guided=True),
    "ddim": diffusion_spec,
    "ddpm": lambda: diffusion_spec(kind="ddpm"),
    "tokens": tokens_spec,
}


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_valid_bundles_of_every_kind(make: Make) -> None:
    bundle = validate(make())
    assert bundle.version == VERSION == 2
    assert Bundle.model_validate_json(bundle.model_dump_json()) == bundle


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_every_input_must_have_its_source_dtype_and_shape(make: Make) -> None:
    spec = make()
    for name, part in spec["graphs"].items():
        for index, taken in enumerate(part["inputs"]):
            for change in ({"name": "elsewhere"}, {"shape": [*taken["shape"], 1]}, {"dtype": "float16"}):
                changed = json.loads(json.dumps(spec))
                changed["graphs"][name]["inputs"][index] |= change
                with pytest.raises(ValidationError, match=r"takes|cache"):
                    validate(changed)


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_no_graph_may_be_missing_and_none_may_be_left_over(make: Make) -> None:
    spec = make()
    for name in spec["graphs"]:
        if name != "denoise_step_guided":
            less = {**spec, "graphs": {k: v for k, v in spec["graphs"].items() if k != name}}
            with pytest.raises(ValidationError):
                validate(less)
    more = {**spec, "graphs": {**spec["graphs"], "other": next(iter(spec["graphs"].values()))}}
    with pytest.raises(ValidationError, match="runs the graphs"):
        validate(more)


def set_in(*path: Any, value: Any) -> Callable[[Spec], None]:
    def change(spec: Spec) -> None:
        at: Any = spec
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value

    return change


def append(*path: Any, value: Any) -> Callable[[Spec], None]:
    def change(spec: Spec) -> None:
        at: Any = spec
        for key in path:
            at = at[key]
        at.append(value)

    return change


@pytest.mark.parametrize(
    ("make", "change", "said"),
    [
        (flow_spec, set_in("program", "width", value=5), "does not fit"),
        (flow_spec, set_in("program", "horizon", value=15), "does not fit"),
        (flow_spec, set_in("program", "time_to", value=1.0), "nothing would be denoised"),
        (flow_spec, set_in("program", "steps", value=0), "program.flow.steps"),
        (flow_spec, set_in("graphs", "denoise_step", "outputs", 0, "name", value="v"), "must give velocity"),
        (flow_spec, append("graphs", "vision", "outputs", value=CACHE[0]), "already graph vision's"),
        (flow_spec, append("graphs", "prefill", "outputs", value=tensor("x", "float32", 1)),
         "fed by graph prefill and by the program"),
        (flow_spec, append("graphs", "prefill", "outputs", value=MASK), "already the observation's"),
        (flow_spec, append("graphs", "prefill", "outputs", value=tensor("next.a", "float32", 1)),
         "already a cache's next step's"),
        (flow_spec, append("graphs", "vision", "inputs", value=CACHE[0]), "which nothing gives"),
        (flow_spec, append("graphs", "vision", "inputs", value=tensor("time", "float32", 1)),
         "nothing gives"),
        (flow_spec, append("graphs", "prefill", "inputs", value=TOKENS), "share a name"),
        (flow_spec, set_in("graphs", "prefill", "data", value=["golden/observations.npz"]), "in its folder"),
        (flow_spec, set_in("history", value={"steps": 2, "dt_s": 0.1}), "takes image.front"),
        (flow_spec, set_in("state", value=None), "takes 'state', which nothing gives"),
        (flow_spec, set_in("numerics", "components", value={"no": 1.0}), "numerics.components"),
        (make_spec, set_in("history", value={"steps": 1, "dt_s": 0.1}), "history.steps"),
        (make_spec, set_in("history", value={"steps": 20, "dt_s": 0.1}), "kept"),
        (diffusion_spec, set_in("program", "first", value=9), "has no 8 actions from 9 on"),
        (diffusion_spec, set_in("program", "scheduler", "inference_steps", value=101), "do not fit"),
        (diffusion_spec, set_in("program", "scheduler", "steps_offset", value=10), "do not fit"),
        (diffusion_spec, set_in("program", "scheduler", "beta_schedule", value="laplace"), "beta_schedule"),
        (tokens_spec, set_in("program", "count", value=7), "count 7 is not 1 steps x 6"),
        (tokens_spec, set_in("program", "first_logit", value=86), "no logit for the action token 85"),
        (tokens_spec, set_in("program", "cache_length", value=17), "no room for 4 positions"),
        (tokens_spec, set_in("program", "cache_length", value=31), "no axis of 31"),
        (tokens_spec, set_in("graphs", "decode_step", "outputs", 1, "name", value="next.other"),
         "takes no other"),
        (tokens_spec, set_in("graphs", "decode_step", "outputs", 1, "shape", value=[1, 2, 32, 4]),
         "takes no key"),
        (tokens_spec, set_in("program", "vocabulary", "encoding", "last", value=3), "do not fit below"),
        (tokens_spec, set_in("program", "vocabulary", "high", value=-1.0), "no range"),
        (tokens_spec, set_in("state", value=make_spec()["state"]), "no graph takes state"),
    ],
)  # fmt: skip
def test_contradictions_are_refused(make: Make, change: Callable[[Spec], None], said: str) -> None:
    spec = json.loads(json.dumps(make()))
    change(spec)
    with pytest.raises(ValidationError) as caught:
        validate(spec)
    assert said in str(caught.value)


BPE: Spec = {
    "kind": "bpe", "file": "tokenizer.json", "length": 8, "pad": 0, "pad_side": "right",
    "template": "{instruction}", "strip": True, "lower": False, "special_tokens": True,
}  # fmt: skip


def test_a_tokenizer_of_open_language_brings_its_file() -> None:
    spec = flow_spec()
    spec["task"]["tokenizer"] = BPE
    with pytest.raises(ValidationError, match=r"names tokenizer\.json, which is not in `files`"):
        validate(spec)
    assert validate(spec, "tokenizer.json").task.tokenizer is not None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"template": "do it"}, "once each"),
        ({"template": "{instruction}{instruction}"}, "once each"),
        ({"template": "{instruction} {state}"}, "once each"),
        ({"replace": [["", "x"]]}, "empty text"),
        ({"state_text": {"bins": 256, "low": -1.0, "high": 1.0, "length": 6}}, "once each"),
        ({"template": "{instruction} {state}",
          "state_text": {"bins": 256, "low": -1.0, "high": 1.0, "length": 5}}, "more elements"),
        ({"template": "{instruction} {state}",
          "state_text": {"bins": 256, "low": 1.0, "high": 1.0, "length": 6}}, "no range"),
    ],
)  # fmt: skip
def test_templates_that_cannot_be_filled(change: Spec, said: str) -> None:
    spec = flow_spec()
    spec["task"]["tokenizer"] = BPE | change
    with pytest.raises(ValidationError, match=said):
        validate(spec, "tokenizer.json")


def test_the_state_may_live_in_the_instruction_alone() -> None:
    """pi0.5: no graph takes `state`, its digits are part of the prompt."""
    spec = flow_spec()
    spec["graphs"]["denoise_step"]["inputs"] = [
        t for t in spec["graphs"]["denoise_step"]["inputs"] if t["name"] != "state"
    ]
    spec["task"]["tokenizer"] = BPE
    with pytest.raises(ValidationError, match="no graph takes state"):
        validate(spec, "tokenizer.json")
    text = {"bins": 256, "low": -1.0, "high": 1.0, "length": 32}
    spec["task"]["tokenizer"] = BPE | {"template": "{instruction}, {state};", "state_text": text}
    assert validate(spec, "tokenizer.json").task.uses_state
    spec["state"] = None
    with pytest.raises(ValidationError, match="the bundle has none"):
        validate(spec, "tokenizer.json")


def test_tokens_are_decoded_after_instructions_padded_on_the_right_only() -> None:
    spec = tokens_spec()
    spec["task"]["tokenizer"] = BPE | {"pad_side": "left"}
    with pytest.raises(ValidationError, match="padded on the right"):
        validate(spec, "tokenizer.json")


@pytest.mark.parametrize(
    ("integers", "separator", "end", "ok"),
    [
        ([[1], [2]], [], [], True),
        ([[1], [1]], [9], [8], False),
        ([[1], [1, 2]], [], [], False),
        ([[1], [1, 2]], [9], [], False),
        ([[1], [1, 2]], [9], [8], True),
        ([[1], [1, 2]], [2], [8], False),
        ([[1], [1, 2]], [9], [2], False),
    ],
)
def test_written_integers_must_be_unambiguous(
    integers: list[list[int]], separator: list[int], end: list[int], ok: bool
) -> None:
    values = {"kind": "text_integers", "integers": integers, "separator": separator, "end": end}
    if ok:
        TextIntegers.model_validate(values)
    else:
        with pytest.raises(ValidationError):
            TextIntegers.model_validate(values)


@pytest.mark.parametrize("space", ["ee_delta", "ee_pose"])
def test_end_effector_actions_are_named_and_have_a_convention(space: str) -> None:
    spec = tokens_spec()
    make_pose(spec, space)
    spec["program"]["count"] = 7
    assert validate(spec).action.space == space
    spec["action"]["elements"][0]["name"] = "dx"
    with pytest.raises(ValidationError, match=f"the elements of {space}"):
        validate(spec)
    spec["action"]["elements"][0]["name"] = "x"
    spec["action"]["pose"] = None
    with pytest.raises(ValidationError, match="do not belong together"):
        validate(spec)


def test_a_graph_of_several_files() -> None:
    spec = flow_spec()
    spec["graphs"]["prefill"]["data"] = ["graphs/prefill.data"]
    assert validate(spec).graphs["prefill"].data == ["graphs/prefill.data"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_damaged_wiring_is_refused_or_still_whole(data: st.DataObject) -> None:
    """Whatever is moved, renamed or dropped: what validates has a source for every input."""
    spec = json.loads(json.dumps(ALL[data.draw(st.sampled_from(sorted(ALL)))]()))
    names = sorted({t["name"] for g in spec["graphs"].values() for t in g["inputs"] + g["outputs"]})
    for _ in range(data.draw(st.integers(1, 3))):
        part = data.draw(st.sampled_from(sorted(spec["graphs"])))
        side = data.draw(st.sampled_from(["inputs", "outputs"]))
        rows = spec["graphs"][part][side]
        index = data.draw(st.integers(0, len(rows) - 1)) if rows else 0
        what = data.draw(st.sampled_from(["rename", "drop", "copy"]))
        if not rows:
            continue
        if what == "rename":
            rows[index]["name"] = data.draw(st.sampled_from(names))
        elif what == "drop":
            del rows[index]
        else:
            rows.append(dict(rows[index]))
    try:
        bundle = validate(spec)
    except ValidationError:
        return
    everything = {t.name for g in bundle.graphs.values() for t in g.outputs}
    own = {"x", "time", "step", "token", "position", "prefix", "prefix_weight"}
    seen = {"image.front", "state", "tokens", "token_mask"}
    for part in bundle.graphs.values():
        assert {t.name for t in part.inputs} <= everything | own | seen
