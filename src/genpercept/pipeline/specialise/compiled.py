"""How a network's calls are run: compiled, or replayed as a CUDA graph for sizes that come again."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from genpercept.core import said
from genpercept.core.values import Features

_LOG = logging.getLogger(__name__)
_RECOMPILES = 32  # sizes that a network compiled for fixed sizes takes before it runs uncompiled
_GRAPHS = 4  # sizes whose graphs are kept: each holds the memory of its activations


class Compiled:
    """torch.compile for "dynamic" shapes (one graph for all sizes) or "static" ones (one for each size, quicker).

    On the CPU weights become constants of the graph, so that they are laid out for its convolutions once, not in each call.
    """

    backend = "inductor"

    def __init__(self, function: Callable[..., Any], shapes: str) -> None:
        self.function, self.dynamic = function, shapes == "dynamic"
        self.by_device: dict[str, Callable[..., Any]] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        kind = next(_tensors((args, kwargs))).device.type
        if kind not in self.by_device:
            options: Any = {"freezing": True} if kind == "cpu" and self.backend == "inductor" else None
            said.once(f"compiling the networks for {kind}, once; the first image waits for it")
            compiler: Callable[..., Callable[..., Any]] = torch.compile  # its overloads lack recompile_limit
            self.by_device[kind] = compiler(
                self.function, dynamic=self.dynamic, backend=self.backend, options=options, recompile_limit=_RECOMPILES
            )
        return self.by_device[kind](*args, **kwargs)

    def clear(self) -> None:
        """Forget the compiled code: weights were moved, or changed."""
        self.by_device.clear()


class Graphed:
    """A function of tensors that on a CUDA device is recorded at a size's second call and replayed from then on.

    Elsewhere, at a size's first call, and where it cannot be recorded (a warning says why, once; `off` keeps it), it runs as it
    is. Answers are copies, so the next replay does not overwrite them. Not for several threads or streams at once.
    """

    def __init__(
        self, function: Callable[..., Any], pools: Pools | None = None, record: Callable[..., Replay] | None = None
    ) -> None:
        """pools: of the pipeline, whose graphs run one after the other. record: makes a Replay of the function for these
        arguments; None: a CUDA graph, on CUDA devices only."""
        self.function = function
        self.pools = Pools() if pools is None else pools  # an empty one is to be filled
        self._given, self.off = record, ""
        self.seen: set[Any] = set()
        self.graphs: OrderedDict[Any, Replay] = OrderedDict()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        tensors = list(_tensors((args, kwargs)))
        record = self._given or (self._record if tensors and all(x.is_cuda for x in tensors) else None)
        if record is None or self.off:
            return self.function(*args, **kwargs)
        key = _key((args, kwargs))
        if key not in self.graphs:
            if key not in self.seen:
                self.seen.add(key)
                return self.function(*args, **kwargs)
            try:
                self.graphs[key] = record(self.function, args, kwargs)
            except RuntimeError as error:  # of CUDA: out of memory, or an operation that cannot be recorded
                self.seen.discard(key)
                self.off = str(error).splitlines()[0]
                _LOG.warning("CUDA graphs are off: %s", self.off)
                return self.function(*args, **kwargs)
            while len(self.graphs) > _GRAPHS:
                self.graphs.popitem(last=False)
        self.graphs.move_to_end(key)
        return copied(self.graphs[key](args, kwargs))

    def clear(self) -> None:
        """Forget the graphs: weights were moved, and with them the addresses that graphs hold."""
        self.off = ""
        self.seen.clear()
        self.graphs.clear()
        if isinstance(self.function, Compiled):
            self.function.clear()

    def _record(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Replay:
        device = next(_tensors((args, kwargs))).device
        return record_cuda(function, args, kwargs, device, self.pools[device])


class Pools(dict[torch.device, Any]):
    """The memory that graphs of one device share: those that run one after the other can, and together need that of one.

    What a graph answers stays its own, for as long as the graph is there.
    """

    def __missing__(self, device: torch.device) -> Any:
        with torch.cuda.device(device):
            self[device] = torch.cuda.graph_pool_handle()
        return self[device]


Replay = Callable[[tuple[Any, ...], dict[str, Any]], Any]


def record_cuda(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], device: torch.device, pool: Any
) -> Replay:
    """A CUDA graph of one call, after three runs on a side stream (PyTorch's recipe, "CUDA semantics: CUDA graphs").

    On the tensors' device, which need not be the current one: streams and graphs are of the current one.
    """
    with torch.cuda.device(device):
        held, held_named = copied(args), copied(kwargs)
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(3):
                function(*held, **held_named)
        torch.cuda.current_stream(device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, stream=stream):
            answer = function(*held, **held_named)

    def replay(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for mine, given in zip(_tensors((held, held_named)), _tensors((args, kwargs)), strict=True):
            mine.copy_(given, non_blocking=True)
        with torch.cuda.device(device):
            graph.replay()
        return answer

    return replay


def copied(value: Any) -> Any:
    """The same structure (tensor, Features, tuple, list, named arguments) over copies of its tensors."""
    if isinstance(value, Features):
        return replace(value, latent=copied(value.latent), pyramid=copied(value.pyramid))
    if isinstance(value, dict):
        return {name: copied(x) for name, x in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(copied(x) for x in value)
    return value.clone() if isinstance(value, Tensor) else value


def _tensors(value: Any) -> Iterator[Tensor]:
    """Those in such a structure, in an order that depends on the structure alone: a head is given Features or a list."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Features):
        yield from _tensors((value.latent, *value.pyramid))
    elif isinstance(value, dict):
        yield from _tensors(tuple(value[name] for name in sorted(value)))
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _tensors(each)


def _key(value: Any) -> Any:
    """What tells one structure from another: sizes, types, devices, and whatever is no tensor."""
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype, value.device
    if isinstance(value, Features):
        return _key(value.latent), _key(value.pyramid), value.size
    if isinstance(value, dict):
        return tuple((name, _key(value[name])) for name in sorted(value))
    return tuple(map(_key, value)) if isinstance(value, tuple | list) else value
