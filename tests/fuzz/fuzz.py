"""Changes files at random and asks that each is taken or refused: `python fuzz.py 1000 [--seed 7] [--only onnx,npy]`.

Anything but success and DeployError (UsageError is one) is a failure, and so are a case that takes longer than `SECONDS`
and one that wants more memory than `BYTES`. What fails is kept in the folder that is printed. Nothing is compiled.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from mutate import bytes_of, json_of, message_of

from inception_deploy.errors import DeployError

SECONDS, BYTES = 20, 16 << 30
"""Of one case; the memory is address space, of which torch alone takes some gigabytes."""

Make = Callable[[Random], None]
"""Writes a changed file, and reads it as the product does."""


def onnx_files(folder: Path) -> Make:
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper, parser

    from inception_deploy.sources import capture

    texts = [
        "c = Conv<pads=[1,1,1,1]>(x, w)  r = Relu(c)  p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)  y = Flatten(p)",
        's = Shape(x)  o = ConstantOfShape(s)  a = Add(x, o)  c = Conv<auto_pad="SAME_UPPER">(a, w)  y = GlobalAveragePool(c)',
        "q = Clip(x, lo, hi)  c = Conv(q, w)  f = Flatten(c)  t = Transpose<perm=[1,0]>(f)  y = Softmax<axis=0>(t)",
    ]
    seeds = []
    for text in texts:
        model = parser.parse_model(
            f'<ir_version: 10, opset_import: ["": 20]> g (float[1,3,8,8] x) => (float[] y) {{ {text} }}'.replace(
                "  ", "\n"
            )
        )
        arrays = {"w": np.ones((4, 3, 3, 3)), "lo": np.array(0.0), "hi": np.array(6.0)}
        model.graph.initializer.extend(
            numpy_helper.from_array(value.astype(np.float32), name) for name, value in arrays.items() if name in text
        )
        seeds.append(model)
    body = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["z"])], "b", [], [helper.make_tensor_value_info("z", 1, None)]
    )
    branch = helper.make_node("If", ["t"], ["y"], then_branch=body, else_branch=body)
    flag = numpy_helper.from_array(np.array(True), "t")
    port = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])
    graph = helper.make_graph([branch], "g", [port], [helper.make_tensor_value_info("y", 1, None)], [flag])
    seeds.append(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))

    def make(random: Random) -> None:
        seed = random.choice(seeds)
        changed = message_of(seed, random) if random.random() < 0.7 else bytes_of(seed.SerializeToString(), random)
        (folder / "net.onnx").write_bytes(changed)
        capture.load_onnx(folder / "net.onnx")

    return make


def weights(folder: Path) -> Make:
    import torch
    from safetensors.torch import save

    from inception_deploy.models import checkpoint

    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    state = {"state_dict": module.state_dict(), "args": argparse.Namespace(lr=0.1), "ema": module.state_dict()}
    seeds = [save(dict(module.state_dict()))]
    for zipped in (True, False):
        buffer = io.BytesIO()
        torch.save(state, buffer, _use_new_zipfile_serialization=zipped)
        seeds.append(buffer.getvalue())

    def make(random: Random) -> None:
        (folder / "w.pth").write_bytes(bytes_of(random.choice(seeds), random))
        checkpoint.load(module, folder / "w.pth", ema=random.random() < 0.3)

    return make


def trained(folder: Path) -> Make:
    from safetensors.torch import load, save

    from inception_deploy import models
    from inception_deploy.models import trained

    module = models.build("lenet5", num_classes=2, input_size=32)
    info = trained.TrainedInfo("lenet5", ("a", "b"), (1, 32, 32), module.preprocessing)
    trained.save(folder / "t.safetensors", module, info)
    tensors = load((folder / "t.safetensors").read_bytes())
    head = (folder / "t.safetensors").read_bytes()
    about = json.loads(json.loads(head[8 : 8 + int.from_bytes(head[:8], "little")])["__metadata__"]["inception_deploy"])

    def make(random: Random) -> None:
        text = json.dumps(json_of(about, random))
        (folder / "t.safetensors").write_bytes(save(tensors, {"inception_deploy": text}))
        models.load_trained(folder / "t.safetensors")

    return make


def documents(folder: Path) -> Make:
    import documents as seeds

    from inception_deploy.commands import inspect as shown
    from inception_deploy.reports import inspect
    from inception_deploy.reports.page import facts, gather, layers, write
    from inception_deploy.runtime import bundle
    from inception_deploy.runtime.preprocessing import from_dict

    def make(random: Random) -> None:
        contents: dict[str, Any] = dict(seeds.BUNDLE)
        name = random.choice(list(contents))
        changed = json_of(contents[name], random)
        place = Path(tempfile.mkdtemp(dir=folder))
        (place / "model.onnx").write_bytes(b"")
        for other in ("plan.json", "verify.json", "refusals.json"):
            (place / other).write_text(json.dumps(changed if other == name else contents[other]))
        bundle.seal(place, contents["manifest.json"])
        if name == "manifest.json":
            sealed = json.loads((place / "manifest.json").read_text())
            keep = {key: sealed[key] for key in ("schema_version", "files")} if random.random() < 0.9 else {}
            (place / "manifest.json").write_text(
                json.dumps({**changed, **keep} if isinstance(changed, dict) else changed)
            )
        with bundle.open(place) as opened:
            if opened.manifest["preprocessing"] is not None:
                from_dict(opened.manifest["preprocessing"])
            plan, verified = opened.document("plan.json"), opened.document("verify.json")
            shown_facts = {
                "kind": "bundle",
                **{key: opened.manifest[key] for key in ("model", "target", "precision", "memory")},
                **{key: opened.manifest.get(key) for key in ("arithmetic", "tuning", "quantization", "passes")},
                "parameters": 1, "macs": 1, "other_ops": 1, "peak_bytes": 1, "nodes": {}, "branches": [], "layers": [],
                "placement": plan["placements"], "plans": inspect._plans(opened, plan),
                "refusals": opened.document("refusals.json"),
                "steps": inspect._steps(plan["steps"], [[1.0] * len(plan["steps"])]),
            }  # fmt: skip
            for show in (shown._summary, shown._steps, shown._refusals):
                from rich.console import Console

                show(shown_facts)(Console(file=io.StringIO()))
            tensors = (opened.manifest.get("quantization") or {}).get("tensors", {})
            write.render(
                facts.Facts(
                    opened.manifest, plan, verified, shown_facts["refusals"], shown_facts,
                    layers.layers_of(shown_facts["steps"]), "a machine", 1, "now", 1,
                    ranges=[gather._range(tensor, how) for tensor, how in tensors.items()],
                )
            )  # fmt: skip

    return make


def arrays(folder: Path) -> Make:
    import numpy as np

    from inception_deploy.runtime import given

    buffer, archive = io.BytesIO(), io.BytesIO()
    np.save(buffer, np.zeros((1, 1, 8, 8), np.float32))
    np.savez(archive, x=np.zeros((1, 1, 8, 8), np.float32))

    def make(random: Random) -> None:
        (folder / "x.npy").write_bytes(bytes_of(buffer.getvalue()[: random.choice((128, 384))], random))
        (folder / "x.npz").write_bytes(bytes_of(archive.getvalue(), random))
        given._read(folder / "x.npy")

    def both(random: Random) -> None:
        try:
            make(random)
        except DeployError:
            given._archive(folder / "x.npz")

    return both


def states(folder: Path) -> Make:
    from inception_deploy.quantize.calibrate import Statistics
    from inception_deploy.quantize.histogram import Histogram

    Statistics("f", 3, ["a"], {"x": Histogram(), "y": Histogram()}).save(folder / "s.npz")
    seed = (folder / "s.npz").read_bytes()

    def make(random: Random) -> None:
        (folder / "s.npz").write_bytes(bytes_of(seed, random))
        Statistics.load(folder / "s.npz")

    return make


def pictures(folder: Path) -> Make:
    from PIL import Image

    from inception_deploy.runtime import preprocessing

    seeds = []
    for kind in ("png", "jpeg", "bmp", "gif", "webp", "tiff"):
        buffer = io.BytesIO()
        Image.new("RGB", (20, 12), (10, 200, 30)).save(buffer, kind)
        seeds.append((kind, buffer.getvalue()))
    how = preprocessing.Preprocessing((0.5,) * 3, (0.5,) * 3, 8, (8, 8), "bilinear")

    def make(random: Random) -> None:
        kind, seed = random.choice(seeds)
        path = folder / f"a.{kind}"
        path.write_bytes(bytes_of(seed, random))
        preprocessing.load([path], how)

    return make


KINDS = {
    "onnx": onnx_files, "weights": weights, "trained": trained, "documents": documents, "arrays": arrays,
    "states": states, "pictures": pictures,
}  # fmt: skip


class TooLong(BaseException):
    """A case that took longer than `SECONDS`."""


def _too_long(signum: int, frame: FrameType | None) -> None:
    raise TooLong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, help="cases in all")
    parser.add_argument("--seed", type=int, default=0, help="of the first case; each case has its own")
    parser.add_argument("--only", default=",".join(KINDS), help="kinds of files, with commas")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, _too_long)
    kept = Path(tempfile.mkdtemp(prefix="fuzz-"))
    kinds = options.only.split(",")
    makes = {kind: KINDS[kind](_below(kept, kind)) for kind in kinds}
    failures = taken = 0
    for case in range(options.seed, options.seed + options.count):
        kind = kinds[case % len(kinds)]
        (kept / "last").write_text(f"{kind} {case}\n")  # where a library takes the whole process down
        error: BaseException | None = None
        signal.alarm(SECONDS)
        try:
            with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                warnings.simplefilter("ignore")
                makes[kind](Random(case))
            taken += 1
        except DeployError:
            pass
        except (Exception, TooLong) as found:
            error = found
        signal.alarm(0)
        if error is not None:
            failures += 1
            last = traceback.extract_tb(error.__traceback__)[-1]
            print(
                f"{kind} {case}: {type(error).__name__}: {str(error)[:150]} ({last.filename}:{last.lineno})", flush=True
            )
    print(
        f"{options.count} cases, {taken} taken, {failures} failed; --seed N with count 1 repeats one; files in {kept}"
    )
    return min(failures, 1)


def _below(folder: Path, kind: str) -> Path:
    (folder / kind).mkdir()
    return folder / kind


if __name__ == "__main__":
    sys.exit(main())
