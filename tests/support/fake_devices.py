"""A GPU without one: tensors on "cuda" have shapes, dtypes, strides and devices, but no values; those on the CPU are real.

Operations on the GPU's tensors run in PyTorch's FakeTensorMode, which refuses what a GPU refuses: tensors of two devices in
one operation. Every wait of the host for the GPU (a copy back, `.item()`, `bool()`, a boolean index) is noted with the line of
ours that asked for it, and gives zeros. What it cannot show: values, speed, memory, and kernels that the GPU lacks.
"""

from __future__ import annotations

import ctypes
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

_ATEN = torch.ops.aten
_OURS = f"{Path('src') / 'genpercept'}"
_CUDA, _META = 1, 14  # of c10::DeviceType
_DEVICE, _BORROWED = torch.device("cuda", 0), torch.device("meta")  # the guard that CUDA borrows calls its device so
_DATA_DEPENDENT = (fake_tensor.DynamicOutputShapeException, fake_tensor.DataDependentOutputException)


class _Fake(FakeTensorMode):
    """Never looks for a real device."""

    avoid_device_init = True  # type: ignore[assignment]

    def __deepcopy__(self, memo: Any) -> _Fake:
        return self  # a copy of a tensor is of the same mode


class FakeGPU(TorchDispatchMode):
    """Within it `device="cuda"` works. waits: how often which function of ours (file:function) waited for the device.

    uploads: copies to it, in the same way.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fake = _Fake(allow_non_fake_inputs=False)
        self.waits: Counter[str] = Counter()
        self.uploads: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.is_inference_mode_enabled() and _is_made_of_others(func):
            with self:  # in inference mode they come whole, and would hide a copy
                return func.decompose(*args, **(kwargs or {}))
        if func is _ATEN._to_copy.default and (kwargs or {}).get("device") == _BORROWED:
            kwargs = kwargs | {"device": _DEVICE}
        flat, spec = tree_flatten((args, kwargs or {}))
        there = any(isinstance(x, FakeTensor) for x in flat)
        target = next((x for x in flat if isinstance(x, torch.device)), None)
        if not there and (target is None or target.type != "cuda"):
            return func(*args, **(kwargs or {}))
        if func is _ATEN._local_scalar_dense.default:
            self.waits[_place()] += 1
            return torch.zeros((), dtype=args[0].dtype).item()
        if func is _ATEN._to_copy.default and there and target is not None and target.type == "cpu":
            self.waits[_place()] += 1
            return _zeros(args[0], kwargs or {})
        if func is _ATEN.copy_.default and not isinstance(args[0], FakeTensor):
            self.waits[_place()] += 1
            return args[0].zero_()
        copies = func in (_ATEN._to_copy.default, _ATEN.copy_.default)
        if copies and not all(isinstance(x, FakeTensor) for x in flat if isinstance(x, Tensor)):
            self.uploads[_place()] += 1
        given, named = tree_unflatten([self._as_fake(x) for x in flat], spec)
        try:
            with self.fake:
                return func(*given, **named)
        except _DATA_DEPENDENT:
            self.waits[_place()] += 1
            raise

    def _as_fake(self, value: Any) -> Any:
        """A tensor of the CPU without its values. Not FakeTensorMode.from_tensor: it leaves weak references behind."""
        if not isinstance(value, Tensor) or isinstance(value, FakeTensor):
            return value
        with self.fake:
            return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device)


@cache
def _is_made_of_others(func: Any) -> bool:
    name = func.name()
    return name.startswith("aten::") and torch._C._dispatch_has_kernel_for_dispatch_key(
        name, "CompositeImplicitAutograd"
    )


def _zeros(like: Tensor, options: dict[str, Any]) -> Tensor:
    dtype = options.get("dtype") or like.dtype
    return torch.empty_strided(like.shape, like.stride(), dtype=dtype).zero_()


def _place() -> str:
    """The innermost function of the package that led here, such as tasks/depth.py:decode; core/arrays acts for its callers."""
    frame = sys._getframe(1)
    while frame is not None:
        _, found, path = frame.f_code.co_filename.rpartition(_OURS)
        if found and not path.endswith("core/arrays.py"):
            return f"{path.strip('/')}:{frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    return "outside"


# ---- what a build without CUDA lacks -----------------------------------------------------------------------------------


@contextmanager
def fake_gpu() -> Iterator[FakeGPU]:
    """A FakeGPU, and a torch that believes in it: it is available, autocast works, gradients are computed."""
    _no_op_guard()
    module = torch.cuda
    said: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "is_bf16_supported": lambda *_unused, **_more: True,
        "mem_get_info": lambda *_unused: (80 << 30, 80 << 30),
        "get_device_name": lambda *_unused: "no GPU",
    }
    silent = ("_lazy_init", "set_device", "synchronize", "empty_cache", "manual_seed_all", "reset_peak_memory_stats")
    with ExitStack() as stack:
        for name, function in said.items():
            stack.enter_context(mock.patch.object(module, name, function))
        for name in silent:
            stack.enter_context(mock.patch.object(module, name, lambda *_unused, **_more: None))
        stack.enter_context(mock.patch.object(torch.Tensor, "pin_memory", lambda self, *_unused: self))
        stack.enter_context(mock.patch.object(fake_tensor, "init_gpu_context", lambda device: None))
        for engine in (torch.autograd, torch.autograd.graph):
            stack.enter_context(mock.patch.object(engine, "_engine_run_backward", _backward))
        lifts = torch._C._only_lift_cpu_tensors()  # a new tensor is made on the CPU and copied, which FakeGPU sees
        torch._C._set_only_lift_cpu_tensors(True)
        stack.callback(torch._C._set_only_lift_cpu_tensors, lifts)
        swaps = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(
            True
        )  # Module.to keeps its Parameter objects, as on a GPU
        stack.callback(torch.__future__.set_swap_module_params_on_conversion, swaps)
        stack.enter_context(
            mock.patch.object(torch.utils, "weakref", _NoWeakReferences)
        )  # FakeTensorMode's own do no harm
        yield stack.enter_context(FakeGPU())


class _NoWeakReferences:
    @staticmethod
    def getweakrefs(_of: Any) -> list[Any]:
        return []


def _no_op_guard() -> None:
    """Give CUDA the device guard of the meta device, which does nothing: without one, gradients abort the process."""
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    guards = (ctypes.c_void_p * (_META + 1)).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
    if not guards[_CUDA]:
        guards[_CUDA] = guards[_META]


def _backward(tensors: Sequence[Tensor], gradients: Any, *_unused: Any, **_more: Any) -> tuple[Any, ...]:
    """Reverse-mode differentiation over PyTorch's own graph, node by node: its engine asks for an accelerator's streams.

    Only what `Tensor.backward` needs: gradients are added to the leaves' `grad`.
    """
    waiting: dict[Any, list[Any]] = {}
    edges: Counter[Any] = Counter()
    found: set[Any] = set()
    todo: list[Any] = [tensor.grad_fn for tensor in tensors]
    while todo:
        node = todo.pop()
        if node in found:
            continue
        found.add(node)
        following = [each for each, _ in node.next_functions if each is not None]
        edges.update(following)
        todo += following
    for tensor, gradient in zip(tensors, gradients, strict=True):
        _add(waiting, tensor.grad_fn, tensor.output_nr, torch.ones_like(tensor) if gradient is None else gradient)
    ready: list[Any] = [tensor.grad_fn for tensor in tensors if not edges[tensor.grad_fn]]
    with torch.no_grad():
        while ready:
            node = ready.pop()
            answers = _apply(node, waiting.pop(node, []))
            for (after, number), answer in zip(node.next_functions, answers, strict=False):
                if after is None:
                    continue
                if answer is not None:
                    _add(waiting, after, number, answer)
                edges[after] -= 1
                if not edges[after]:
                    ready.append(after)
    return ()


def _add(waiting: dict[Any, list[Any]], node: Any, number: int, gradient: Tensor) -> None:
    """As the engine's validate_outputs: the gradient in the shape, dtype and on the device of what it is of."""
    of = node.variable if hasattr(node, "variable") else node._input_metadata[number]
    if of.device != gradient.device:
        raise RuntimeError(f"{node}: a gradient on {gradient.device} for a tensor on {of.device}")
    if gradient.shape != of.shape:
        gradient = gradient.sum_to_size(of.shape)
    gradient = gradient.to(of.dtype)
    row = waiting.setdefault(node, [])
    row += [None] * (number + 1 - len(row))
    row[number] = gradient if row[number] is None else row[number] + gradient


def _apply(node: Any, gradients: list[Any]) -> tuple[Any, ...]:
    if hasattr(node, "variable"):  # a leaf
        if gradients:
            leaf = node.variable
            leaf.grad = gradients[0] if leaf.grad is None else leaf.grad + gradients[0]
        return ()
    count = len(node._input_metadata)
    answer = node(*(gradients + [None] * (count - len(gradients))))
    return answer if isinstance(answer, tuple) else (answer,)


def devices(value: Any) -> set[str]:
    """The kinds of devices of all tensors in a structure, or of a module's parameters and buffers."""
    if isinstance(value, torch.nn.Module):
        value = [*value.parameters(), *value.buffers()]
    found: set[str] = set()
    tree_map(lambda x: found.add(x.device.type) if isinstance(x, Tensor) else None, value)
    return found
