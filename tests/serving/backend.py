"""A stand-in of triton_python_backend_utils for model.py: what it uses of it, as the python backend's README defines it."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from google.protobuf import json_format, text_format

from .model_config import ModelConfig


class Tensor:
    """A named array of the host."""

    def __init__(self, name: str, array: np.ndarray) -> None:
        assert isinstance(array, np.ndarray)
        assert array.flags.c_contiguous
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> np.ndarray:
        return self._array


class TritonError(Exception):
    """What a response carries in place of tensors."""

    def message(self) -> str:
        return str(self)


class InferenceResponse:
    """The answer to one request."""

    def __init__(self, output_tensors: Sequence[Tensor] = (), error: TritonError | None = None) -> None:
        self.outputs, self.error = {tensor.name(): tensor.as_numpy() for tensor in output_tensors}, error


class Request:
    """Arrays by the names of the inputs."""

    def __init__(self, **arrays: np.ndarray) -> None:
        self.arrays = arrays


def get_input_tensor_by_name(request: Request, name: str) -> Tensor | None:
    return Tensor(name, request.arrays[name]) if name in request.arrays else None


def started(folder: Path, *, kind: str = "CPU", device: int = 0) -> Any:
    """A model of a repository with one instance of it initialised, its settings read from config.pbtxt as the server does."""
    backend = ModuleType("triton_python_backend_utils")
    vars(backend).update(Tensor=Tensor, TritonError=TritonError, InferenceResponse=InferenceResponse,
                         get_input_tensor_by_name=get_input_tensor_by_name)  # fmt: skip
    settings = text_format.Parse((folder / "config.pbtxt").read_text(), ModelConfig())
    config = json_format.MessageToDict(
        settings, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    config["parameters"] = {row["key"]: row["value"] for row in config["parameters"]}
    before = sys.dont_write_bytecode, sys.modules.get(backend.__name__)
    sys.modules[backend.__name__] = backend
    try:
        spec = importlib.util.spec_from_file_location("model", folder / "1" / "model.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        model = module.TritonPythonModel()
        model.initialize({"model_config": json.dumps(config), "model_instance_kind": kind, "model_instance_device_id": str(device),
                          "model_instance_name": f"{folder.name}_0_0", "model_repository": str(folder), "model_version": "1",
                          "model_name": folder.name})  # fmt: skip
    finally:
        sys.dont_write_bytecode = before[0]
        del sys.modules[backend.__name__]
    return model
