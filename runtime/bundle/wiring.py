"""Where the inputs of a program's graphs come from: by name, each from exactly one source.

Sources are the observation (`image.<camera>`, `state`, `tokens`, `token_mask`), the program's own variables,
and outputs of graphs that ran before. There is no other wiring data in a bundle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from .contracts import ActionContract, History, ImageSpec, StateContract, TaskContract
from .programs import NEXT, Diffusion, Flow, Role, Single, Tokens, check_cache
from .tensors import Tensor

IMAGE = "image."
STATE, TOKENS, MASK = "state", "tokens", "token_mask"
AnyProgram = Single | Flow | Diffusion | Tokens


class Ports(Protocol):
    """A graph, or what stands for one: what it takes and gives."""

    @property
    def inputs(self) -> Sequence[Tensor]: ...
    @property
    def outputs(self) -> Sequence[Tensor]: ...


def observed(
    cameras: Sequence[ImageSpec], history: History | None, state: StateContract | None, task: TaskContract
) -> dict[str, Tensor]:
    """The tensors of one observation, by name. With a history, pictures and state have its steps as their
    second axis, oldest first."""

    def stacked(shape: list[int]) -> list[int]:
        return shape if history is None else [1, history.steps, *shape[1:]]

    out = [Tensor(name=IMAGE + c.name, dtype=c.dtype, shape=stacked(c.shape)) for c in cameras]
    if state is not None:
        out.append(Tensor(name=STATE, dtype="float32", shape=stacked([1, len(state.elements)])))
    if task.tokenizer is not None:
        shape = [1, task.tokenizer.length]
        out += [Tensor(name=name, dtype="int64", shape=shape) for name in (TOKENS, MASK)]
    return {tensor.name: tensor for tensor in out}


def check_wiring(
    program: AnyProgram,
    graphs: Mapping[str, Ports],
    observation: Mapping[str, Tensor],
    action: ActionContract,
    *,
    state_in_text: bool = False,
) -> None:
    """Raises `ValueError` unless the program can run these graphs: every input has exactly one source of its
    dtype and shape, the program gets what it reads, and nothing of the observation is left unused.

    `state_in_text`: the instruction's tokens hold the state.
    """
    roles = _present(program, graphs, action)
    sources: dict[str, tuple[str, Tensor]] = {
        name: ("the observation", tensor) for name, tensor in observation.items()
    }
    used: set[str] = set()
    for role in roles:
        graph = graphs[role.graph]
        here = dict(sources)
        for variable in role.variables:
            if variable.name in here:
                raise ValueError(f"{variable.name} is fed by {here[variable.name][0]} and by the program")
            here[variable.name] = ("the program", variable)
        for tensor in graph.inputs:
            _check_source(role.graph, tensor, here)
            used.add(tensor.name)
        _check_outputs(role, graph)
        if role.gives:
            _give(role, graph, sources)
    if isinstance(program, Tokens):
        decode = graphs["decode_step"]
        _check_room(program, observation)
        check_cache(decode.outputs, decode.inputs, program.cache_length)
    _check_used(observation, used | ({STATE} if state_in_text else set()))


def _present(program: AnyProgram, graphs: Mapping[str, Ports], action: ActionContract) -> list[Role]:
    roles = program.roles(action)
    known = {role.graph for role in roles}
    missing = [role.graph for role in roles if role.required and role.graph not in graphs]
    if missing or not set(graphs) <= known:
        raise ValueError(
            f"a program of kind {program.kind} runs the graphs {sorted(known)}, the bundle has "
            f"{sorted(graphs)}{f'; {missing[0]} is missing' if missing else ''}"
        )
    return [role for role in roles if role.graph in graphs]


def _check_source(graph: str, tensor: Tensor, sources: Mapping[str, tuple[str, Tensor]]) -> None:
    found = sources.get(tensor.name)
    if found is None:
        raise ValueError(
            f"graph {graph} takes {tensor.name!r}, which nothing gives; there are {sorted(sources)}"
        )
    who, source = found
    if (source.dtype, source.shape) != (tensor.dtype, tensor.shape):
        raise ValueError(
            f"graph {graph} takes {tensor.name} as {tensor.dtype} {tensor.shape}, {who} gives it as "
            f"{source.dtype} {source.shape}"
        )


def _check_outputs(role: Role, graph: Ports) -> None:
    given = {tensor.name: (tensor.dtype, tensor.shape) for tensor in graph.outputs}
    for wanted in role.outputs:
        if given.get(wanted.name) != (wanted.dtype, wanted.shape):
            raise ValueError(
                f"graph {role.graph} must give {wanted.name} as {wanted.dtype} {wanted.shape}; it gives "
                f"{given}"
            )


def _give(role: Role, graph: Ports, sources: dict[str, tuple[str, Tensor]]) -> None:
    read = {tensor.name for tensor in role.outputs}
    for tensor in graph.outputs:
        if tensor.name in read:
            continue
        if tensor.name in sources or tensor.name.startswith(NEXT):
            who = sources.get(tensor.name, ("a cache's next step",))[0]
            raise ValueError(f"graph {role.graph} gives {tensor.name}, which is already {who}'s")
        sources[tensor.name] = (f"graph {role.graph}", tensor)


def _check_room(program: Tokens, observation: Mapping[str, Tensor]) -> None:
    instruction = observation[TOKENS].shape[1] if TOKENS in observation else 0
    needed = program.image_positions + instruction + program.most_tokens
    if needed > program.cache_length:
        raise ValueError(
            f"program.cache_length {program.cache_length} has no room for {program.image_positions} "
            f"positions of pictures, {instruction} of the instruction and {program.most_tokens} of the answer"
        )


def _check_used(observation: Mapping[str, Tensor], used: set[str]) -> None:
    # Whoever needs no mask leaves it; anything else declared and not read is a misunderstanding.
    unused = [name for name in observation if name not in used and name != MASK]
    if unused:
        raise ValueError(f"no graph takes {', '.join(unused)}, which the bundle declares")
