"""A bundle's documents, small and right."""

from __future__ import annotations

from typing import Any

PORT = {"name": "input", "dtype": "float32", "shape": [1, 1, 8, 8], "scale": 0.5, "zero_point": 3}
OUTPUT = {"name": "logits", "dtype": "float32", "shape": [1, 10], "kind": "logits"}
MANIFEST: dict[str, Any] = {
    "model": "lenet5",
    "target": "cpu",
    "target_details": {"kind": "cpu", "variant": "avx2"},
    "precision": "int8",
    "arithmetic": "8-bit integers",
    "integers": True,
    "inputs": [PORT],
    "outputs": [OUTPUT],
    "plans": [
        {
            "batch": 8,
            "inputs": [PORT | {"shape": [8, 1, 8, 8]}],
            "outputs": [OUTPUT | {"shape": [8, 10]}],
            "memory": {"arena_bytes": 512, "weights_bytes": 64},
        }
    ],
    "preprocessing": {"mean": [0.5], "std": [0.5], "resize": 8, "crop": [8, 8], "interpolation": "bilinear"},
    "labels": ["a", "b"],
    "memory": {"arena_bytes": 64, "weights_bytes": 64, "shared_bytes": 64},
    "cost": {"macs": 1, "parameters": 1},
    "passes": [{"name": "fold", "fired": 1}],
    "seed": 0,
    "tools": {"torch": "2"},
    "tuning": {"database_sha256": "0" * 64, "kernels": []},
    "quantization": {"scheme": "float-scale", "images": 16, "float_nodes": ["fc"]},
}
STEP = {"layer": "c1", "layers": ["c1"], "op": "conv", "kernel": "k", "wave": 0, "macs": 10, "output": "c1"}
LAYOUT = {"steps": [STEP], "placements": [{"value": "c1", "offset": 0, "bytes": 64, "shares": None}]}
PLAN = LAYOUT | {"plans": [LAYOUT]}
ROW = {
    "stage": "compiled", "reference": "optimised", "max_abs": 0.1, "max_rel": 0.1, "cosine": 1.0, "top5_same": True,
    "tolerance": 0.1, "allowed": 0.1, "criterion": "fixed", "noise": None, "ok": True,
}  # fmt: skip
VERIFY = {"ok": True, "stages": [ROW], "not_run": [{"stage": "compiled", "reason": "none"}]}
REFUSALS = [{"node": "n", "op": "TopK", "reason": "none", "share": 0.1}]
BUNDLE: dict[str, Any] = {
    "manifest.json": MANIFEST, "plan.json": PLAN, "verify.json": VERIFY, "refusals.json": REFUSALS,
}  # fmt: skip
