"""What a bundle's JSON files hold, as schemas; `bundle.open` and `Bundle.document` hold them to it."""

from __future__ import annotations

from ..schema import MapOf, Maybe, Missing, NotEmpty, Nullable, OneOf, Whole
from ..verify import TOLERANCES

_SIZE = Whole(1, 2**31 - 1)
_COUNT = Whole()

_INTEGERS = ("uint8", "int8", "uint16", "int16", "int32")

_PORT = {
    "name": str,
    "dtype": str,
    "shape": [_SIZE],
    "kind": Maybe(str),
    "scale": Missing(float),
    "zero_point": Missing(Whole(-(2**31), 2**31)),
    "quantized_dtype": Missing(str),
}
_INPUT = {**_PORT, "shape": NotEmpty(_SIZE)}

MANIFEST = {
    "model": str,
    "target": str,
    "target_details": {"kind": str, "variant": str},
    "precision": OneOf(("fp32", "fp32-exact", "tf32", "fp16", "bf16", "int8")),
    "arithmetic": Maybe(str),
    "integers": Missing(bool),
    "in_fp32": Missing([str]),
    "onnx_only": Missing(bool),
    "config": Maybe(dict),
    "inputs": NotEmpty(_INPUT),
    "outputs": NotEmpty(_PORT),
    "plans": Missing(
        [
            {
                "batch": _SIZE,
                "inputs": NotEmpty(_INPUT),
                "outputs": NotEmpty(_PORT),
                "memory": {"arena_bytes": _COUNT, "weights_bytes": _COUNT},
            }
        ]
    ),
    "preprocessing": Nullable(dict),
    "labels": Maybe([str]),
    "memory": {"arena_bytes": _COUNT, "weights_bytes": _COUNT, "shared_bytes": Missing(_COUNT)},
    "cost": Maybe({"macs": _COUNT, "parameters": _COUNT}),
    "passes": Missing(
        [
            {
                "name": str,
                "fired": _COUNT,
                **{
                    f"{what}_{when}": Maybe(_COUNT)
                    for what in ("nodes", "macs", "other_ops")
                    for when in ("before", "after")
                },
            }
        ]
    ),
    "zoo": Maybe(dict),
    "seed": Missing(Whole(0, 2**32 - 1)),
    "tools": MapOf(str),
    "tuning": Maybe(
        {
            "database_sha256": str,
            "judged": Maybe(str),
            "shipped": Missing(str),
            "kernels": [{"kernel": Maybe(str), "layer": Maybe(str), "knobs": Maybe(dict), "ratio": Missing(float)}],
        }
    ),
    "quantization": Maybe(
        {
            "scheme": Maybe(str),
            "method": Maybe(str),
            "images": _COUNT,
            "repairs": Maybe([str]),
            "float_nodes": [str],
            "sixteen_bit": Missing([str]),
            "floats": Maybe([{"node": str, "op": str, "reason": str, "percent": float}]),
            "integer_macs_percent": Missing(float),
            "held_back": Maybe(_COUNT),
            "candidates": Maybe([{"candidate": str, "sqnr_db": float, "kept": bool}]),
            "top1": Maybe({"fp32": float, "int8": float, "images": _COUNT}),
            "drop_points": Maybe(float),
            "steps": Maybe([{"float_layers": [str], "drop_points": float, "wide_layers": Missing([str])}]),
            "tensors": Missing(
                MapOf({"scale": float, "zero_point": Whole(-(2**31), 2**31), "dtype": OneOf(_INTEGERS)})
            ),
        }
    ),
    "files": MapOf(str),
}

_LAYOUT = {
    "steps": [
        {
            "layer": str,
            "layers": [str],
            "op": str,
            "kernel": Maybe(str),
            "family": Maybe(str),
            "device": Missing(str),
            "refused": Maybe(MapOf(str)),
            "wave": Maybe(_COUNT),
            "macs": _COUNT,
            "bytes": Missing(_COUNT),
            "output": str,
        }
    ],
    "placements": [
        {
            "value": str,
            "offset": _COUNT,
            "bytes": _COUNT,
            "shares": Nullable(str),
            "first_wave": Maybe(Whole(-1)),
            "last_wave": Maybe(Whole(-1, 2**20)),
        }
    ],
    "kept": Missing([{"node": str, "op": str, "reason": str}]),
    "compared": Missing([{"node": str, "op": str, "device": str, "vta": float, "host": float, "crossing": float}]),
    "siblings": Missing([{"nodes": [str], "joined": bool, "apart": float, "together": Nullable(float), "reason": str}]),
}
PLAN = {**_LAYOUT, "plans": Missing([_LAYOUT])}

_ROW = {
    "stage": OneOf(tuple(TOLERANCES)),
    "batch": Missing(_SIZE),
    "reference": str,
    "max_abs": Nullable(float),
    "max_rel": Nullable(float),
    "cosine": Nullable(float),
    "top5_same": Nullable(bool),
    "tolerance": float,
    "allowed": Missing(float),
    "criterion": Missing(str),
    "noise": Maybe(float),
    "input": Maybe(str),
    "inputs": Maybe([str]),
    "output": Maybe(_COUNT),
    "quiet": Maybe(bool),
    "set_aside": Maybe(MapOf(float)),
    "ok": bool,
}
VERIFY = {"ok": bool, "stages": [_ROW], "not_run": [{"stage": str, "reason": str}]}

_VTA_RANGE = {"memory": str, "offset": _COUNT, "bytes": _COUNT}
VTA_MAP = {
    "version": OneOf((1,)),
    "configuration": str,
    "memories": [
        {"number": Whole(0, 2**16 - 1), "name": str, "kind": str, "bytes": _COUNT, "file": Missing(str),
         "offset": Missing(_COUNT)}
    ],
    "allocations": [_VTA_RANGE],
    "streams": [
        {
            "instructions": str,
            "relocations": str,
            "count": _COUNT,
            "steps": [{"name": str, "op": str, "first": _COUNT, "end": _COUNT, "operands": [_VTA_RANGE]}],
            "flush_before": [_VTA_RANGE],
            "invalidate_after": [_VTA_RANGE],
        }
    ],
}  # fmt: skip

REFUSALS = [{"node": str, "op": str, "reason": str, "share": float}]

OF = {
    "manifest.json": MANIFEST,
    "plan.json": PLAN,
    "verify.json": VERIFY,
    "refusals.json": REFUSALS,
    "vta/memory.json": VTA_MAP,
}
"""File name -> its schema."""
