"""`run_model`, the program of a bundle: what it computes, shows and refuses; and what builds programs with a bundle."""

from __future__ import annotations

import json
import os
import platform
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inception_deploy import models, targets
from inception_deploy.errors import DeployError
from inception_deploy.graph.driver import optimise
from inception_deploy.lower.lower import lower
from inception_deploy.lower.plan import Step
from inception_deploy.runtime import bundle
from inception_deploy.sources import capture
from inception_deploy.targets import cpu_library, library, program, tables

from ..cases.emulator import machine
from .test_runtime_c import COMPILERS, HERE, ROOT, STRICT, needs_compiler, run, works

FILES = {
    "run_model",
    "run_model.LICENSE",
    "model.a",
    "model.c",
    "inception_deploy.hpp",
    "inception_deploy-config.cmake",
    "model.mk",
}


def write(
    tiny: Any, plan: Any, folder: Path, triple: str, features: tuple[str, ...] = (), *, embed: bool = False
) -> list[str]:
    parts = [cpu_library.part(plan, tiny.objects(triple))]
    names = library.write_library(plan, parts, folder, triple=triple, features=features, embed=embed)
    return names + program.write_program(plan, parts, folder, triple=triple, features=features, embed=embed)


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    write(tiny, tiny.chain(5), folder, tiny.triple)
    return folder


Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def call(folder, tmp_path) -> Call:
    """Run the program in an empty folder."""

    def call_it(*arguments: object, program: Path = folder / "run_model", status: int = 0) -> Any:
        command = [str(program), *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == status, done.stderr
        assert (done.stderr == "") == (status == 0)
        assert done.stderr.count("\n") == (status != 0), done.stderr
        return done

    return call_it


def test_equal_plans_give_equal_files(tiny, folder, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = write(tiny, tiny.chain(5), tmp_path, tiny.triple)
    assert set(names) == FILES | {"model.so", "weights.bin", "inception_deploy.h"}
    for name in names:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name
    assert "Rich Felker" in (tmp_path / "run_model.LICENSE").read_text(encoding="utf-8")
    assert (tmp_path / "run_model").stat().st_mode & 0o111 == 0o111
    for trace in (str(tmp_path), "/tmp", str(Path.home()), str(ROOT)):
        for name in ("run_model", "model.a", "model.c"):
            assert trace.encode() not in (tmp_path / name).read_bytes()


@pytest.mark.parametrize("kind", ["npy", "raw", "npy of version 2"])
@pytest.mark.parametrize("threads", [1, 3])
def test_it_computes_what_the_library_does(tiny, call, pixels, tmp_path, kind, threads) -> None:
    if kind == "raw":
        pixels.tofile(tmp_path / "x")
    else:
        with (tmp_path / "x").open("wb") as file:
            np.lib.format.write_array(file, pixels, version=(2, 0) if "2" in kind else (1, 0))
    call("x", "--output", "y.npy", "--threads", threads)
    y = np.load(tmp_path / "y.npy")
    np.testing.assert_array_equal(y, tiny.chained(pixels, 5))
    assert y.flags.c_contiguous
    assert y.dtype == np.float32


BESIDE = 2048
"""KiB that the program may take besides weights, activations, input and output."""


def held(plan: Any) -> int:
    """KiB of a plan's memories."""
    return sum(memory.bytes for memory in plan.memories) // 1024


@pytest.mark.slow
def test_the_memory_of_a_large_network(tmp_path) -> None:
    """The emulators of other machines count their own, so that this one stands for all."""
    target = targets.parse("cpu")
    module = models.build("irv2", seed=0)
    model, _ = optimise(capture.to_onnx(module, (1, *module.input_shape)), verify=False)
    plan = lower(model, target)
    target.build(plan, tmp_path)
    command = [tmp_path / "run_model", "--random", "--json", "--threads", "1", "--top", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    peak = json.loads(done.stdout)["peak_kib"]
    assert (tmp_path / "weights.bin").stat().st_size // 1024 < peak < held(plan) + BESIDE


def test_times_and_steps(tiny, call, pixels, tmp_path) -> None:
    np.save(tmp_path / "x.npy", pixels)
    document = json.loads(call("x.npy", "--json", "--repeat", "20", "--profile", "--threads", "2").stdout)
    assert (document["runs"], document["threads"], document["target"]) == (20, 2, "cpu")
    assert 0 < document["p50_ms"] <= document["p90_ms"] <= document["p99_ms"]
    assert document["p50_ms"] / 20 < document["mean_ms"]
    assert document["sd_ms"] >= 0
    assert [step["name"] for step in document["steps"]] == [f"t_gather_{i}" for i in range(5)]
    assert all(step["ms"] > 0 and step["macs"] == 10_000_000 for step in document["steps"])
    assert 100 < document["peak_kib"] < 100_000
    shown = call("--random", "--profile", "--repeat", "3").stdout.splitlines()
    assert shown[0].startswith("p50 ")
    assert "3 runs" in shown[0]
    assert [line.split()[-1] for line in shown[2:]] == [f"t_gather_{i}" for i in range(5)]
    assert "input pixels float32 1x4096 16384 bytes" in call("--info").stdout
    assert call("--help").stdout.startswith("usage: run_model ")


@pytest.fixture(scope="module")
def classifier(tiny, tmp_path_factory) -> Path:
    """(1, 4096) of grey pixels in, as (2, 2048) classes out, with the documents of a bundle."""
    folder = tmp_path_factory.mktemp("classifier")
    plan = tiny.classifier((2, 2048))
    write(tiny, plan, folder, tiny.triple)
    how = {"mean": [0.0], "std": [1.0], "resize": 64, "crop": [64, 64], "interpolation": "bilinear", "scale": "1/255"}
    how |= {"color": "gray", "layout": "nchw", "dtype": "float32"}
    manifest = {"preprocessing": how, "outputs": [{"name": "out0", "kind": "logits"}]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_classes_have_names(classifier, call, pixels, tmp_path) -> None:
    np.save(tmp_path / "x.npy", pixels)
    on = classifier / "run_model"
    labels = tmp_path / "names.txt"
    labels.write_text("".join(f'class "{i}"\n' for i in range(2048)), encoding="utf-8")
    document = json.loads(call("x.npy", "--json", "--top", "3", "--labels", labels, program=on).stdout)
    logits = pixels.reshape(2, 2048).astype(np.float64)
    scores = np.exp(logits - logits.max(1, keepdims=True))
    scores /= scores.sum(1, keepdims=True)
    for row, expected, score in zip(document["top"], np.argsort(-logits, 1, kind="stable"), scores, strict=True):
        assert [guess["index"] for guess in row] == expected[:3].tolist()
        assert [guess["label"] for guess in row] == [f'class "{i}"' for i in expected[:3]]
        np.testing.assert_array_equal([guess["score"] for guess in row], np.round(score[expected[:3]], 6))
    best = int(np.argmax(logits[0]))
    assert f'{best}  class "{best}"\n' in call("x.npy", "--labels", labels, program=on).stdout
    labels.write_text("one\ntwo\n")
    assert "has 2 lines, the network 2048 classes" in call("x.npy", "--labels", labels, program=on, status=1).stderr
    manifest = json.loads((classifier / "manifest.json").read_text())
    manifest["outputs"][0]["kind"] = "probabilities"
    (tmp_path / "other.json").write_text(json.dumps(manifest))
    shown = json.loads(call("x.npy", "--json", "--manifest", "other.json", program=on).stdout)
    assert shown["top"][0][0]["score"] == logits[0].max()


def test_a_picture(classifier, call, tmp_path) -> None:
    draw = np.random.default_rng(4).integers(0, 256, (64, 64)).astype(np.uint8)
    (tmp_path / "x.pgm").write_bytes(b"P5\n64 64\n255\n" + draw.tobytes())
    on = classifier / "run_model"
    call("x.pgm", "--output", "y.npy", program=on)
    expected = draw.astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy").reshape(64, 64), expected)
    (tmp_path / "x.pgm").write_bytes(b"P5\n64 64\n255\n" + draw.tobytes()[:-1])
    assert call("x.pgm", program=on, status=1).stderr == "run_model: x.pgm: is cut short\n"


def test_weights_behind_the_program(tiny, folder, call, pixels, tmp_path) -> None:
    """`cat run_model weights.bin` is a program that needs no other file."""
    alone = tmp_path / "alone"
    alone.write_bytes((folder / "run_model").read_bytes() + (folder / "weights.bin").read_bytes())
    alone.chmod(0o755)
    np.save(tmp_path / "x.npy", pixels)
    call("x.npy", "--output", "y.npy", program=alone)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), tiny.chained(pixels, 5))
    damaged = bytearray(alone.read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "other").write_bytes(damaged)
    (tmp_path / "other").chmod(0o755)
    assert "other: the weights file is damaged" in call("x.npy", program=tmp_path / "other", status=1).stderr


EMBEDDED = """
#include <cstdio>
#include "inception_deploy.hpp"
int main() try {
  using inception_deploy::Model;
  Model model = Model::embedded(2);
  std::vector<float> in(Model::input().bytes / sizeof(float), 1.0f), out(in.size());
  model.run({in.data()}, {out.data()});
  std::printf("%g\\n", out[0]);
} catch (const inception_deploy::Error &error) {
  std::printf("%d %s\\n", error.code, error.what());
}
"""


@needs_compiler
def test_weights_linked_in(tiny, folder, call, pixels, tmp_path) -> None:
    """The program, the library and the archive need no file; a bit of them that is not what it was is found out."""
    if not works("g++", "undefined", tmp_path):
        pytest.skip("g++ is not installed")
    made, alone = tmp_path / "made", tmp_path / "alone"
    made.mkdir()
    write(tiny, tiny.chain(5), made, tiny.triple, embed=True)
    weights = (made / "weights.bin").read_bytes()
    assert weights == (folder / "weights.bin").read_bytes()
    np.save(tmp_path / "x.npy", pixels)
    shutil.copy(made / "run_model", alone)
    call("x.npy", "--output", "y.npy", program=alone)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), tiny.chained(pixels, 5))
    call("x.npy", "--weights", "absent", program=alone, status=1)
    (tmp_path / "use.cc").write_text(EMBEDDED)
    first = f"{tiny.chained(np.ones_like(pixels), 5)[0]:g}\n"
    refusal = "1 an argument is null or out of range\n"
    for where, says in ((made, first), (folder, refusal)):
        for linked in ([where / "model.so", f"-Wl,-rpath,{where}"], [where / "model.a", "-pthread", "-lm"]):
            run("g++", "-std=c++11", *STRICT[1:], "-I", where, tmp_path / "use.cc", *linked, "-o", tmp_path / "use")
            assert run(tmp_path / "use").stdout == says
    program = bytearray(alone.read_bytes())
    program[program.index(weights) + 5] ^= 1
    alone.write_bytes(program)
    message = call("x.npy", program=alone, status=1).stderr
    assert message == f"run_model: {alone}: the weights file is damaged, or belongs to another model\n"


def test_what_is_refused(folder, call, pixels, tmp_path) -> None:
    np.save(tmp_path / "x.npy", pixels)
    np.save(tmp_path / "shape.npy", pixels[:, :-1])
    np.save(tmp_path / "type.npy", pixels.astype(np.float64))
    np.save(tmp_path / "order.npy", np.asfortranarray(np.ones((4096, 2))))
    (tmp_path / "short.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-1])
    (tmp_path / "long.npy").write_bytes((tmp_path / "x.npy").read_bytes() + b"\0")
    (tmp_path / "head.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:9])
    (tmp_path / "x.raw").write_bytes(bytes(16383))
    (tmp_path / "x.ppm").write_bytes(b"P6\n1 1\n255\nabc")
    (tmp_path / "x.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(100))
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    weights = (folder / "weights.bin").read_bytes()
    (tmp_path / "cut.bin").write_bytes(weights[:-4])
    (tmp_path / "bad.bin").write_bytes(bytes([weights[0] ^ 1]) + weights[1:])
    (tmp_path / "m.json").write_text("{")
    takes = "input pixels takes 16384 bytes of float32"
    for status, arguments, message in [
        (1, ["gone.npy"], "gone.npy: No such file or directory"),
        (1, ["shape.npy"], "shape.npy: holds '<f4' of shape (1, 4095); input pixels is float32 (1, 4096) in C's order"),
        (1, ["type.npy"], "type.npy: holds '<f8'"),
        (1, ["order.npy"], "order.npy: holds '<f8'"),
        (1, ["short.npy"], f"short.npy: has the wrong size: {takes}"),
        (1, ["long.npy"], f"long.npy: has the wrong size: {takes}"),
        (1, ["head.npy"], "head.npy: is a .npy file that is cut short"),
        (1, ["x.raw"], f"x.raw: has the wrong size: {takes}, a .npy file of them, or a PPM or PGM picture"),
        (1, ["x.ppm"], "x.ppm: no manifest.json beside the program says how pictures are prepared"),
        (1, ["x.jpg"], "x.jpg: is a JPEG; djpeg makes a PPM of it, which is read"),
        (1, ["x.png"], "x.png: is a PNG; pngtopnm makes a PPM of it, which is read"),
        (1, ["x.ppm", "--manifest", "m.json"], "m.json: is damaged; it is no JSON"),
        (1, ["."], ".: "),
        (1, ["x.npy", "--weights", "cut.bin"], "cut.bin: the weights file has the wrong size"),
        (1, ["x.npy", "--weights", "bad.bin"], "bad.bin: the weights file is damaged"),
        (1, ["x.npy", "--weights", "none"], "none: the weights file cannot be opened"),
        (1, ["x.npy", "--output", "no/y.npy"], "no/y.npy: cannot be written: No such file or directory"),
        (1, ["x.npy", "--output", "/dev/full"], "/dev/full: cannot be written: No space left on device"),
        (2, [], "input pixels takes a .npy file of its shape, or 1 picture"),
        (2, ["x.npy", "x.npy"], "x.npy: the network takes no more than the 1 files before it"),
        (2, ["--threads", "0", "x.npy"], "--threads takes a number from 1 to 256, not '0'"),
        (2, ["--repeat", "many", "x.npy"], "--repeat takes a number from 1 to 1000000, not 'many'"),
        (2, ["--top"], "--top takes a value"),
        (2, ["--fast"], "there is no option --fast; run_model --help lists them"),
        (2, ["--random", "x.npy"], "--random takes no FILEs"),
        (2, ["x.npy", "--output", "a", "--output", "b"], "the network has 1 outputs, not 2"),
    ]:
        assert call(*arguments, status=status).stderr.startswith(f"run_model: {message}"), arguments
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    with open("/dev/full", "w") as full:
        command = [folder / "run_model", "--info"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "run_model: standard output: No space left on device\n")


def sanitized(tiny: Any, folder: Path) -> Path:
    """The program by another compiler, with sanitizers."""
    if not COMPILERS or not works(COMPILERS[0], "address,undefined", folder):
        pytest.skip("no compiler here has -fsanitize=address,undefined")
    plan = tiny.chain(5)
    (folder / "model.c").write_text(tables.model_c(plan, [cpu_library.part(plan, tiny.objects())]))
    (folder / "weights.bin").write_bytes(plan.weights)
    names = [*program.SOURCES, *library.RUNTIME, *cpu_library.SOURCES]
    sources = [folder / "model.c", HERE / "c" / "kernels.c", *(program.CSRC / name for name in names)]
    flags = ["-O1", "-g", "-pthread", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-I", program.CSRC]
    run(COMPILERS[0], "-std=c11", *flags, *sources, "-lm", "-o", folder / "run_model")
    return folder


def test_files_changed_at_random(tiny, pixels, tmp_path) -> None:
    """Arrays, weights and manifests: an answer or one line, and nothing for the sanitizers to say."""
    (tmp_path / "built").mkdir()
    folder = sanitized(tiny, tmp_path / "built")
    np.save(tmp_path / "x.npy", pixels)
    (tmp_path / "manifest.json").write_text('{"outputs": [{"kind": "logits"}], "preprocessing": null}')
    draw = random.Random(7)
    originals = {name: (tmp_path / name).read_bytes() for name in ("x.npy", "manifest.json")}
    originals["weights.bin"] = (folder / "weights.bin").read_bytes()
    statuses = []
    for _ in range(120):
        name = draw.choice(sorted(originals))
        content = bytearray(originals[name])
        for _ in range(draw.randint(1, 5)):
            content[draw.randrange(min(len(content), 128))] = draw.randrange(256)
        for other, whole in originals.items():
            (tmp_path / other).write_bytes(whole)
        (tmp_path / name).write_bytes(content[: draw.choice((len(content), draw.randrange(len(content))))])
        options = ["--weights", tmp_path / "weights.bin", "--manifest", tmp_path / "manifest.json"]
        command = [folder / "run_model", tmp_path / "x.npy", *options]
        environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}  # the program ends where it finds a fault
        done = subprocess.run(command, capture_output=True, check=False, timeout=60, env=environment)
        statuses.append(done.returncode)
        assert done.returncode == 0 or (done.returncode == 1 and done.stderr.count(b"\n") == 1), done.stderr
    assert {0, 1} == set(statuses)


def test_a_processor_that_lacks_an_instruction(tiny, tmp_path, call) -> None:
    """And a step that fails."""
    write(tiny, tiny.chain(1), tmp_path, tiny.triple, ("sve2" if platform.machine() == "x86_64" else "avx2",))
    message = call("--random", program=tmp_path / "run_model", status=1).stderr
    assert message.startswith("run_model: this processor lacks ")
    failing = tmp_path / "failing"
    failing.mkdir()
    plan = tiny.plan(tiny.step("t_fail", 0, tiny.input, tiny.output, name="the bad one"))
    write(tiny, plan, failing, tiny.triple)
    (tmp_path / "x.raw").write_bytes(np.full(4096, 13, np.float32).tobytes())
    assert call("x.raw", program=failing / "run_model", status=1).stderr == "run_model: step the bad one failed\n"


@pytest.mark.parametrize("name", ["cortex-a72", "cortex-a9"])
def test_on_arm_under_an_emulator(tiny, pixels, tmp_path, name) -> None:
    on_core, triple = machine(name)
    write(tiny, tiny.chain(5), tmp_path, triple)
    np.save(tmp_path / "x.npy", pixels)
    program = tmp_path / "run_model"
    run(*on_core, program, tmp_path / "x.npy", "--output", tmp_path / "y.npy", "--threads", "2")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), tiny.chained(pixels, 5))
    write(tiny, tiny.chain(5), tmp_path, triple, embed=True)
    (tmp_path / "inside").mkdir()
    holding = shutil.copy(program, tmp_path / "inside")
    run(*on_core, holding, tmp_path / "x.npy", "--output", tmp_path / "w.npy")
    assert (tmp_path / "w.npy").read_bytes() == (tmp_path / "y.npy").read_bytes()
    write(tiny, tiny.chain(5), tmp_path, triple)
    alone = tmp_path / "alone"
    alone.write_bytes(program.read_bytes() + (tmp_path / "weights.bin").read_bytes())
    alone.chmod(0o755)
    (tmp_path / "weights.bin").unlink()
    run(*on_core, alone, tmp_path / "x.npy", "--output", tmp_path / "z.npy")
    assert (tmp_path / "z.npy").read_bytes() == (tmp_path / "y.npy").read_bytes()


# -- programs of others ------------------------------------------------------------------------------------------------


@needs_compiler
def test_examples_are_built_by_make(tiny, folder, pixels, tmp_path) -> None:
    if not shutil.which("make") or not shutil.which("g++"):
        pytest.skip("make or g++ is not installed")
    raw = tmp_path / "input.raw"
    pixels.tofile(raw)
    run("make", "-f", ROOT / "examples" / "c" / "Makefile", f"BUNDLE={folder}", cwd=tmp_path)
    for name in ("classify", "classify_static", "classify_cpp"):
        done = run(tmp_path / name, folder / "weights.bin", raw)
        assert [int(line.split()[0]) for line in done.stdout.splitlines()] == best(tiny, pixels), name


def test_examples_are_built_by_cmake(tiny, folder, pixels, tmp_path) -> None:
    if not shutil.which("cmake") or not shutil.which("g++"):
        pytest.skip("cmake or g++ is not installed")
    raw = tmp_path / "input.raw"
    pixels.tofile(raw)
    run("cmake", "-S", ROOT / "examples" / "c", "-B", tmp_path / "build", f"-Dinception_deploy_DIR={folder}")
    run("cmake", "--build", tmp_path / "build")
    for name in ("classify", "classify_static", "classify_cpp"):
        done = run(tmp_path / "build" / name, folder / "weights.bin", raw)
        assert [int(line.split()[0]) for line in done.stdout.splitlines()] == best(tiny, pixels), name
    failed = subprocess.run(
        ["cmake", "-S", ROOT / "examples" / "c", "-B", tmp_path / "other", f"-Dinception_deploy_DIR={folder}",
         "-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=mips"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert failed.returncode != 0
    assert "CMAKE_SYSTEM_PROCESSOR is mips" in " ".join(failed.stderr.split())


def best(tiny: Any, pixels: np.ndarray) -> list[int]:
    return [int(i) for i in np.argsort(-tiny.chained(pixels, 5), kind="stable")[:5]]


@needs_compiler
@pytest.mark.parametrize("standard", ["c++11", "c++20"])
def test_the_cpp_header_is_strict(standard, folder, tmp_path) -> None:
    if not shutil.which("g++"):
        pytest.skip("g++ is not installed")
    flags = [f"-std={standard}", *STRICT[1:], "-Wconversion", "-Wshadow", "-I", folder, "-fsyntax-only"]
    run("g++", *flags, ROOT / "examples" / "c" / "main.cpp")


@needs_compiler
@pytest.mark.parametrize("name", program.SOURCES)
def test_the_program_is_strict_c11(name, tmp_path) -> None:
    run(COMPILERS[0], *STRICT, "-O2", "-Wconversion", "-Wshadow", "-c", program.CSRC / name, "-o", tmp_path / "out.o")


def test_names_of_layers_cannot_end_a_comment(tiny, tmp_path) -> None:
    step = Step("t_copy", (tiny.input, tiny.output), 0, ("a*/ b /* ü\n",), "copy", "*/ y", 1)
    names = write(tiny, tiny.plan(step), tmp_path, tiny.triple)
    assert "model.c" in names
    assert "/* 0: copy a* / b / * ?? -> * / y */" in (tmp_path / "model.c").read_text()


def test_a_zip_keeps_the_program_a_program(tmp_path, folder) -> None:
    import zipfile

    from inception_deploy import artifact

    artifact.write_zip(folder, tmp_path / "b.zip")
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        modes = {entry.filename: entry.external_attr >> 16 for entry in archive.infolist()}
    assert modes["run_model"] == 0o755
    assert set(modes.values()) == {0o755, 0o644}
    with pytest.raises(DeployError, match=r"has no manifest\.json"), bundle.open(tmp_path / "b.zip"):
        pass
