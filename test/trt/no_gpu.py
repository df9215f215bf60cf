"""Import Torch-TensorRT on a machine without a GPU, to convert, never to execute.

TensorRT for RTX builds engines without a device. What stands in the way is around it:
Torch-TensorRT loads its C++ runtime, which wants CUDA's libraries, asks torch about the GPU, and
reads every engine back, which needs one. So its libraries are overlooked while it is imported, the
questions are answered as an RTX 4090 would, and a plan stands for the engine.
"""

from __future__ import annotations

import os
import types
from typing import Any
from unittest import mock

import torch

CAPABILITY = (8, 9)
_FACTS = types.SimpleNamespace(
    name="none, conversion only",
    major=CAPABILITY[0],
    minor=CAPABILITY[1],
    total_memory=24 << 30,
    multi_processor_count=128,
    uuid="none",
)


def _answers() -> dict[str, Any]:
    """What torch.cuda says instead."""
    return {
        "get_device_capability": lambda *_: CAPABILITY,
        "get_device_properties": lambda *_: _FACTS,
        "get_device_name": lambda *_: _FACTS.name,
        "current_device": lambda: 0,
        "device_count": lambda: 1,
        "set_device": lambda *_: None,
        "synchronize": lambda *_: None,
        "empty_cache": lambda: None,
        "mem_get_info": lambda *_: (_FACTS.total_memory, _FACTS.total_memory),
    }


class Plan(torch.nn.Module):
    """A serialized engine in the place of one that could run.

    Args:
        serialized_engine: What TensorRT built.
    """

    def __init__(self, serialized_engine: bytes, **_: Any) -> None:
        super().__init__()
        self.plan = serialized_engine

    def set_output_tensors_as_unowned(self, _: bool) -> None:
        """It has none."""


class _Runtime:
    """TensorRT's runtime, which cannot even read an engine without a device."""

    def __init__(self, *_: Any) -> None: ...

    def deserialize_cuda_engine(self, plan: Any) -> Any:
        return types.SimpleNamespace(serialize=lambda: bytes(plan))


def torch_tensorrt() -> Any:
    """Return Torch-TensorRT; what it converts holds a :class:`Plan` for every engine."""
    for name, answer in _answers().items():
        setattr(torch.cuda, name, answer)
    if not hasattr(torch._C, "_CudaDeviceProperties"):  # torch built without CUDA
        torch._C._CudaDeviceProperties = types.SimpleNamespace
    real = os.path.isfile

    def isfile(path: Any) -> bool:
        return "libtorchtrt" not in str(path) and real(path)

    with mock.patch("os.path.isfile", isfile):
        import torch_tensorrt as module
        from torch_tensorrt.dynamo.conversion import _conversion, _TRTInterpreter

    _conversion.TorchTensorRTModule = Plan
    _TRTInterpreter.trt.Runtime = _Runtime
    return module
