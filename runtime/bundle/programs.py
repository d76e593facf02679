"""The schema's programs: how the graphs of a policy are run to one chunk of normalised actions.

Each kind says which graphs it runs, in which order, which variables of its own it feeds them, and what they
must give; `wiring` proves from that that every graph input has exactly one source.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from .contracts import ActionContract
from .tensors import Count, Strict, Tensor, TokenId

NEXT = "next."
"""Before the name of a cache tensor: what `decode_step` gives for the next step."""
GUIDED = "denoise_step_guided"

Steps = Annotated[int, Field(ge=1, le=1000)]
Seed = Annotated[int, Field(ge=0, lt=1 << 63)]


@dataclass(frozen=True, slots=True)
class Role:
    """One graph of a program."""

    graph: str
    required: bool = True
    variables: tuple[Tensor, ...] = ()
    """Fed by the program itself."""
    outputs: tuple[Tensor, ...] = ()
    """Read by the program itself."""
    gives: bool = True
    """Whether graphs after it may read its other outputs."""


def _float(name: str, *shape: int) -> Tensor:
    return Tensor(name=name, dtype="float32", shape=list(shape))


def _int(name: str, *shape: int) -> Tensor:
    return Tensor(name=name, dtype="int64", shape=list(shape))


class Single(Strict):
    """One graph, `policy`: the observation in, one chunk (`actions`) out."""

    kind: Literal["single"]

    def roles(self, action: ActionContract) -> tuple[Role, ...]:
        """Its graphs, in the order in which they run."""
        return (Role("policy", outputs=(_float("actions", 1, action.steps, len(action.elements)),)),)

    def noise_shape(self, action: ActionContract) -> tuple[int, int, int] | None:
        """[draws, horizon, width] of the noise of one inference; None where there is none."""
        return None


class Flow(Strict):
    """Flow matching: x from noise at `time_from` to actions at `time_to` along predicted velocities.

    `vision` and `prefill` once, then `steps` times `denoise_step`: x += (time_to - time_from) / steps *
    velocity. x is [1, horizon, width] float32; the chunk is x[:action.steps, :elements].
    `denoise_step_guided` takes the place of `denoise_step` where a chunk is under way: it also gets `prefix`
    [1, horizon, width], what is left of that chunk from the observation on, normalised, 0 where nothing is
    left, and `prefix_weight` [1, horizon, 1]: 1 for actions that will have been carried out, falling to 0
    where the prefix ends (real-time chunking, arXiv 2506.07339).
    """

    kind: Literal["flow"]
    steps: Steps
    width: Annotated[int, Field(ge=1, le=1024)]
    horizon: Annotated[int, Field(ge=1, le=4096)]
    time_from: float = 1.0
    time_to: float = 0.0
    time_sums: bool = False
    """True: a step's time is the float32 sum of the steps before it, as openpi's and LeRobot's loops have it;
    False: it is computed for each step."""
    seed: Seed = 0
    """Of the noise."""

    @model_validator(mode="after")
    def _time(self) -> Flow:
        if self.time_from == self.time_to:
            raise ValueError("program.time_from and time_to are the same: nothing would be denoised")
        return self

    def roles(self, action: ActionContract) -> tuple[Role, ...]:
        if action.steps > self.horizon or len(action.elements) > self.width:
            raise ValueError(
                f"a chunk of {action.steps} x {len(action.elements)} does not fit into the program's "
                f"{self.horizon} x {self.width}"
            )
        size = (1, self.horizon, self.width)
        loop = (_float("x", *size), _float("time", 1))
        prefix = (_float("prefix", *size), _float("prefix_weight", 1, self.horizon, 1))
        velocity = (_float("velocity", *size),)
        return (
            Role("vision", required=False),
            Role("prefill"),
            Role("denoise_step", variables=loop, outputs=velocity, gives=False),
            Role(GUIDED, False, (*loop, *prefix), velocity, gives=False),
        )

    def noise_shape(self, action: ActionContract) -> tuple[int, int, int] | None:
        return 1, self.horizon, self.width


class Scheduler(Strict):
    """How noise is taken away, with the names and formulas of diffusers' DDPMScheduler and DDIMScheduler
    (`timestep_spacing` leading, `variance_type` fixed_small)."""

    kind: Literal["ddpm", "ddim"]
    train_steps: Steps
    inference_steps: Steps
    beta_start: Annotated[float, Field(gt=0, lt=1)]
    beta_end: Annotated[float, Field(gt=0, lt=1)]
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"]
    prediction: Literal["epsilon", "sample"]
    clip_sample: bool
    clip_range: Annotated[float, Field(gt=0)] = 1.0
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    """DDIM only: 0 is deterministic."""
    set_alpha_to_one: bool = True
    """DDIM only."""
    steps_offset: Annotated[int, Field(ge=0, lt=1000)] = 0

    @model_validator(mode="after")
    def _steps(self) -> Scheduler:
        last = (self.inference_steps - 1) * (self.train_steps // self.inference_steps) + self.steps_offset
        if self.inference_steps > self.train_steps or last >= self.train_steps:
            raise ValueError(
                f"scheduler: {self.inference_steps} steps with an offset of {self.steps_offset} do not fit "
                f"into the {self.train_steps} of training"
            )
        return self

    @property
    def draws(self) -> int:
        """Noises of one inference: the start, and what the steps add."""
        if self.kind == "ddim":
            return 1 + (self.inference_steps if self.eta > 0 else 0)
        return 1 + self.inference_steps - (self.steps_offset == 0)


class Diffusion(Strict):
    """Diffusion policy: `cond` once, then the scheduler's steps of `denoise_step`.

    x is [1, horizon, elements] float32; the chunk is x[first:first + action.steps].
    """

    kind: Literal["diffusion"]
    scheduler: Scheduler
    horizon: Annotated[int, Field(ge=1, le=4096)]
    first: Annotated[int, Field(ge=0, le=4096)]
    """Index of the first action that is used: it belongs to the newest observation."""
    seed: Seed = 0
    """Of the noise."""

    def roles(self, action: ActionContract) -> tuple[Role, ...]:
        if self.first + action.steps > self.horizon:
            raise ValueError(
                f"program.horizon {self.horizon} has no {action.steps} actions from {self.first} on"
            )
        size = (1, self.horizon, len(action.elements))
        return (
            Role("cond"),
            Role(
                "denoise_step",
                variables=(_float("x", *size), _int("step", 1)),
                outputs=(_float("prediction", *size),),
                gives=False,
            ),
        )

    def noise_shape(self, action: ActionContract) -> tuple[int, int, int] | None:
        return self.scheduler.draws, self.horizon, len(action.elements)


class ReversedIds(Strict):
    """One token a value; bin 0 is the id `last`, bin 1 the one before (OpenVLA: last 31999)."""

    kind: Literal["reversed_ids"]
    last: TokenId


class TextIntegers(Strict):
    """Values as text, "1 128 91": the ids that write each bin's number, those between two numbers, and those
    that end the answer (RT-2)."""

    kind: Literal["text_integers"]
    integers: Annotated[
        list[Annotated[list[TokenId], Field(min_length=1, max_length=8)]], Field(min_length=2)
    ]
    separator: Annotated[list[TokenId], Field(max_length=4)] = Field(default_factory=list)
    end: Annotated[list[TokenId], Field(max_length=4)] = Field(default_factory=list)

    @model_validator(mode="after")
    def _unambiguous(self) -> TextIntegers:
        written = {tuple(ids) for ids in self.integers}
        if len(written) != len(self.integers):
            raise ValueError("two integers of the vocabulary are written alike")
        starts = {ids[:size] for ids in written for size in range(1, len(ids))} & written
        if starts and not (self.separator and self.end):
            raise ValueError(
                "an integer of the vocabulary begins like another, so it needs a separator and an end"
            )
        # After a whole number, the next id must say whether it goes on.
        following = {ids[len(start)] for start in starts for ids in written
                     if len(ids) > len(start) and ids[: len(start)] == start}  # fmt: skip
        if following & {*self.separator[:1], *self.end[:1]}:
            raise ValueError("separator or end begin like the rest of an integer of the vocabulary")
        return self


class ActionTokens(Strict):
    """The range low..high cut into bins; a token stands for a bin, and means the centre of it (OpenVLA:
    256 edges have 255 centres, and the last bin means the last of them)."""

    bins: Annotated[int, Field(ge=3, le=4096)]
    low: float
    high: float
    encoding: Annotated[ReversedIds | TextIntegers, Field(discriminator="kind")]

    @model_validator(mode="after")
    def _fits(self) -> ActionTokens:
        if not self.low < self.high:
            raise ValueError(f"action tokens from {self.low} to {self.high} have no range")
        if isinstance(self.encoding, ReversedIds) and self.encoding.last < self.bins - 1:
            raise ValueError(f"{self.bins} ids do not fit below {self.encoding.last}")
        if isinstance(self.encoding, TextIntegers) and len(self.encoding.integers) != self.bins:
            raise ValueError(f"{len(self.encoding.integers)} integers are written, not {self.bins}")
        return self

    def ids(self) -> set[int]:
        """Every id that may be decoded."""
        if isinstance(self.encoding, ReversedIds):
            return set(range(self.encoding.last - self.bins + 1, self.encoding.last + 1))
        rows = [*self.encoding.integers, self.encoding.separator, self.encoding.end]
        return {token for row in rows for token in row}


class Tokens(Strict):
    """Actions as tokens: `vision` and `prefill` once, then `decode_step` token by token, greedily among the
    ids that an action can have next.

    `prefill` gives `logits` [1, V'] for the first token and the cache, whose tensors have a static length;
    `decode_step` gets `token` [1, 1], its `position` [1] in the cache and the cache, and gives `logits` and
    the cache as `next.<name>`. Positions count from `image_positions` plus the tokens of the instruction, so
    padding on the right is overwritten, and a token attends to positions up to its own.
    """

    kind: Literal["tokens"]
    count: Annotated[int, Field(ge=1, le=8000)]
    """Values: elements times steps, element by element within a step."""
    vocabulary: ActionTokens
    cache_length: Count
    image_positions: Annotated[int, Field(ge=0, le=1 << 20)] = 0
    """Positions that are not tokens of the instruction (patches of pictures)."""
    logits: Annotated[int, Field(ge=1, le=1 << 24)]
    """V': the ids first_logit .. first_logit + logits - 1."""
    first_logit: TokenId = 0
    """The id of the first logit: graphs may compute those of action tokens alone."""

    @model_validator(mode="after")
    def _vocabulary(self) -> Tokens:
        outside = {
            token for token in self.vocabulary.ids() if not 0 <= token - self.first_logit < self.logits
        }
        if outside:
            raise ValueError(f"the graphs give no logit for the action token {min(outside)}")
        return self

    @property
    def most_tokens(self) -> int:
        """Ids of the longest answer."""
        encoding = self.vocabulary.encoding
        if isinstance(encoding, ReversedIds):
            return self.count
        between = (self.count - 1) * len(encoding.separator) + len(encoding.end)
        return self.count * max(map(len, encoding.integers)) + between

    def roles(self, action: ActionContract) -> tuple[Role, ...]:
        if self.count != action.steps * len(action.elements):
            raise ValueError(
                f"program.count {self.count} is not {action.steps} steps x {len(action.elements)} elements"
            )
        logits = (_float("logits", 1, self.logits),)
        loop = (_int("token", 1, 1), _int("position", 1))
        return (
            Role("vision", required=False),
            Role("prefill", outputs=logits),
            Role("decode_step", variables=loop, outputs=logits, gives=False),
        )

    def noise_shape(self, action: ActionContract) -> tuple[int, int, int] | None:
        return None


Program = Annotated[Single | Flow | Diffusion | Tokens, Field(discriminator="kind")]


def check_cache(outputs: Sequence[Tensor], inputs: Sequence[Tensor], cache_length: int) -> None:
    """Raises `ValueError` unless `decode_step` gives each cache tensor that it takes, and no other, and all
    of them have an axis of `cache_length`."""
    given = {tensor.name.removeprefix(NEXT): tensor for tensor in outputs if tensor.name.startswith(NEXT)}
    taken = {tensor.name: tensor for tensor in inputs}
    for name, tensor in given.items():
        like = taken.get(name)
        if like is None or (like.dtype, like.shape) != (tensor.dtype, tensor.shape):
            raise ValueError(f"decode_step gives {NEXT}{name}, but takes no {name} of that type and shape")
        if tensor.shape[0] != 1 or Counter(tensor.shape)[cache_length] < 1:
            raise ValueError(f"the cache {name} {tensor.shape} has no axis of {cache_length} positions")
    if not given:
        raise ValueError(f"decode_step gives no cache ({NEXT}...)")
