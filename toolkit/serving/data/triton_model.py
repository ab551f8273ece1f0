"""A model of Triton's python backend: the bundle beside this file, through its infer.py (ctypes and numpy).

Nothing else is needed, inception-deploy neither. https://github.com/triton-inference-server/python_backend
SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as triton

sys.dont_write_bytecode = True  # a bundle with files that its manifest does not name counts as damaged


class TritonPythonModel:
    """One instance; each is a process of its own."""

    def initialize(self, args: dict[str, str]) -> None:
        """Check the bundle's files and open it, on the device and with the threads that config.pbtxt says."""
        folder = Path(args["model_repository"], args["model_version"], "bundle")
        config = json.loads(args["model_config"])
        check(folder)
        if args["model_instance_kind"] == "GPU":  # the library takes the first that is visible
            number = int(args["model_instance_device_id"])
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[number].strip() if visible else str(number)
        threads = int(config.get("parameters", {}).get("threads", {}).get("string_value", "0"))
        loader = importlib.machinery.SourceFileLoader("infer", str(folder / "infer.py"))
        infer = importlib.util.module_from_spec(importlib.machinery.ModuleSpec("infer", loader))
        infer.__file__ = str(folder / "infer.py")
        loader.exec_module(infer)
        self.network = infer.Network(folder, threads)
        self.batched = config["max_batch_size"] > 0

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response for each request."""
        given = [
            [triton.get_input_tensor_by_name(request, name).as_numpy() for name, _, _ in self.network.inputs]
            for request in requests
        ]
        try:
            if not self.batched:
                return [self.response(self.network.run(*arrays)) for arrays in given]
            outputs = self.network(np.concatenate([x for (x,) in given]))  # rows of all requests
        except Exception as error:
            return [triton.InferenceResponse(error=triton.TritonError(str(error))) for _ in requests]
        ends = np.cumsum([len(x) for (x,) in given])
        return [
            self.response([array[end - len(x) : end] for array in outputs])
            for (x,), end in zip(given, ends, strict=True)
        ]

    def response(self, arrays: list[np.ndarray]) -> Any:
        """The outputs by their names."""
        tensors = [
            triton.Tensor(name, np.ascontiguousarray(array))
            for (name, _, _), array in zip(self.network.outputs, arrays, strict=True)
        ]
        return triton.InferenceResponse(output_tensors=tensors)


def check(folder: Path) -> None:
    """RuntimeError where a file of the bundle is not what its manifest says: nothing is loaded before that is known."""
    for name, expected in json.loads((folder / "manifest.json").read_text("utf-8"))["files"].items():
        digest = hashlib.sha256()
        with open(folder / name, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        if digest.hexdigest() != expected:
            raise RuntimeError(f"{folder / name} is damaged: its SHA-256 is {digest.hexdigest()}, not {expected}")
