"""A library of several plans on the same weights: opened and run from C, from C++, from Python and as a program."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inception_deploy.errors import DeployError, UsageError
from inception_deploy.lower.plan import Plan, Port, Ref, memories
from inception_deploy.runtime import compiled
from inception_deploy.targets import cpu_library, library, link, parse, program, tables

from .conftest import BYTES, COUNT
from .test_runtime_c import COMPILERS, HERE, SOURCES, STRICT, needs_compiler, run, works


def pair(tiny: Any, length: int = 3) -> tuple[Plan, Plan]:
    """`length` gathers of one image, and of two."""
    steps = []
    for i in range(length):
        for image in range(2):
            source = Ref("input:0", image * BYTES) if i == 0 else tiny.at(2 * image + i % 2)
            goal = Ref("output:0", image * BYTES) if i == length - 1 else tiny.at(2 * image + (i + 1) % 2)
            steps.append(tiny.step("t_gather", i, source, tiny.weight, goal, name=f"image{image}_{i}"))
    inputs, outputs = (Port("pixels", (2, COUNT)),), (Port("out0", (2, COUNT)),)
    one = replace(tiny.chain(length), outputs=(Port("out0", (1, COUNT)),))
    table = memories(inputs, outputs, arena=4 * BYTES, weights=len(one.weights))
    return one, replace(one, inputs=inputs, outputs=outputs, steps=tuple(steps), memories=table)


def built(tiny: Any) -> list[tables.Built]:
    return [(plan, [cpu_library.part(plan, tiny.objects())]) for plan in pair(tiny)]


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plans")
    (plan, parts), *others = built(tiny)
    names = library.write_library(plan, parts, folder, triple=tiny.triple, others=others)
    names += program.write_program(plan, parts, folder, triple=tiny.triple, others=others)
    assert {"model.c", "model_1.c"} <= set(names)
    assert {path.name for path in folder.iterdir()} == set(names)
    return folder


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 9, (2, COUNT)).astype(np.float32)


def test_python_opens_each(tiny, folder, images) -> None:
    with compiled.load(folder, threads=1) as one, compiled.load(folder, threads=2, plan=1) as two:
        expected = np.stack([tiny.chained(image, 3) for image in images])
        assert (one.inputs[0].shape, two.inputs[0].shape) == ((1, COUNT), (2, COUNT))
        for _ in range(3):
            np.testing.assert_array_equal(two.run(images)[0], expected)
            np.testing.assert_array_equal(one.run(images[1:])[0], expected[1:])
        assert [step.name for step in two.profile(images)][:2] == ["image0_0", "image1_0"]
        assert len(one.profile(images[:1])) == 3
    with pytest.raises(DeployError, match="holds 2 plans, and none of number 2"):
        compiled.load(folder, plan=2)


def test_a_library_of_before_holds_one(tiny, folder, images, tmp_path, monkeypatch) -> None:
    newer = {"id_plans", "id_describe_plan", "id_open_plan"}
    monkeypatch.setattr(library, "EXPORTS", tuple(name for name in library.EXPORTS if name not in newer))
    plan, parts = built(tiny)[0]
    library.write_library(plan, parts, tmp_path, triple=tiny.triple)
    with compiled.load(tmp_path, threads=1) as model:
        np.testing.assert_array_equal(model.run(images[:1])[0][0], tiny.chained(images[0], 3))
    with pytest.raises(DeployError, match="holds 1 plans, and none of number 1"):
        compiled.load(tmp_path, plan=1)


def test_the_program_picks_the_plan_that_fits(tiny, folder, images, tmp_path) -> None:
    def call(*arguments: object, status: int = 0) -> subprocess.CompletedProcess[str]:
        command = [str(folder / "run_model"), *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == status, done.stderr
        return done

    expected = np.stack([tiny.chained(image, 3) for image in images])
    for rows in (1, 2):
        np.save(tmp_path / "x.npy", images[:rows])
        images[:rows].tofile(tmp_path / "x.raw")
        for name, *options in (["x.npy"], ["x.raw"], ["x.npy", "--batch", rows]):
            call(name, "--output", "y.npy", "--threads", "2", *options)
            np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), expected[:rows])
    shown = call("--info", "--batch", "2").stdout
    assert "input pixels float32 2x4096 32768 bytes" in shown
    assert "plans for images at once 1, 2\n" in shown
    assert "steps 3\n" in call("--info").stdout
    assert len(call("--random", "--batch", "2", "--profile", "--top", "0").stdout.splitlines()) == 2 + 6
    assert call("--info", "--batch", "3", status=2).stderr == (
        "run_model: there is no plan for 3 images at once; --info lists the plans\n"
    )
    assert "(2, 4096); input pixels is float32 (1, 4096)" in call("x.npy", "--batch", "1", status=1).stderr


@needs_compiler
@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_plans_from_c_under_sanitizers(tiny, sanitizer, tmp_path) -> None:
    if not works(COMPILERS[0], sanitizer, tmp_path):
        pytest.skip(f"{COMPILERS[0]} -fsanitize={sanitizer} does not work here")
    plans = built(tiny)
    for name, text in tables.sources(plans).items():
        (tmp_path / name).write_text(text)
    (tmp_path / "weights.bin").write_bytes(plans[0][0].weights)
    generated = [tmp_path / name for name in ("model.c", "model_1.c")]
    tests = [HERE / "c" / name for name in ("kernels.c", "plans.c")]
    flags = [*STRICT, "-O1", "-g", "-pthread", "-fno-sanitize-recover=all", f"-fsanitize={sanitizer}", "-I", link.CSRC]
    run(COMPILERS[0], *flags, *generated, *tests, *SOURCES, "-o", tmp_path / "plans")
    for threads in ("1", "3"):
        run(tmp_path / "plans", tmp_path / "weights.bin", threads, TSAN_OPTIONS="halt_on_error=1")


USE = """
#include <cstdio>
#include "inception_deploy.hpp"
int main(int, char **argv) {
  using inception_deploy::Model;
  Model model(argv[1], 1);
  model = Model::of_plan(1, argv[1], 1);
  std::vector<float> in(Model::input(0, model.plan()).bytes / sizeof(float), 1.0f), out(in.size());
  model.run({in.data()}, {out.data()});
  try {
    Model::of_plan(2, argv[1]);
  } catch (const inception_deploy::Error &error) {
    std::printf("%d ", error.code);
  }
  std::printf("%u %zu %zu %g\\n", Model::plans(), in.size(), model.profile({in.data()}, {out.data()}).size(), out[0]);
}
"""


@needs_compiler
def test_plans_from_cpp(tiny, folder, tmp_path) -> None:
    if not works("g++", "undefined", tmp_path):
        pytest.skip("g++ is not installed")
    (tmp_path / "use.cc").write_text(USE)
    linked = [folder / "model.so", f"-Wl,-rpath,{folder}"]
    run("g++", "-std=c++11", *STRICT[1:], "-I", folder, tmp_path / "use.cc", *linked, "-o", tmp_path / "use")
    first = tiny.chained(np.ones(COUNT, np.float32), 3)[0]
    assert run(tmp_path / "use", folder / "weights.bin").stdout == f"1 2 {2 * COUNT} 6 {first:g}\n"


def test_targets_of_one_plan_say_so() -> None:
    with pytest.raises(UsageError, match="a bundle for vta:sim holds one plan, not 3"):
        parse("vta:sim").check_several(3)
    parse("vta:sim").check_several(1)
