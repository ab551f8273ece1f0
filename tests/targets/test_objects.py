"""Objects are known by the code they are made of: what does not change it compiles nothing, what does is never overlooked."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from inception_deploy import kernels, targets
from inception_deploy.kernels.spec import GlobalAverage
from inception_deploy.lower.lower import kernel_of
from inception_deploy.lower.plan import Kernel
from inception_deploy.targets import cuda_compile, objects

SPEC = GlobalAverage(1, 1, 4)
TARGET = targets.parse("cpu:avx2")
GOAL = TARGET.tvm_target()


def average(spec: GlobalAverage = SPEC) -> Kernel:
    return kernel_of(TARGET, spec)


@dataclass
class Counts:
    emitted: int = 0
    compiled: int = 0

    def compile(self, kernel: Kernel | None = None, goal: dict[str, Any] = GOAL) -> tuple[int, int]:
        """Kernels emitted and compiled by asking for one."""
        self.emitted = self.compiled = 0
        assert objects.compile_kernel(kernel or average(), goal)[:4] == b"\x7fELF"
        return self.emitted, self.compiled


@pytest.fixture
def counts(tmp_path, monkeypatch) -> Counts:
    """An empty cache, and how often something is emitted and compiled."""
    monkeypatch.setenv("INCEPTION_DEPLOY_CACHE", str(tmp_path))
    found, emit, compile_tir = Counts(), objects.emit, objects.compile_tir

    def counted_emit(kernel: Kernel) -> Any:
        found.emitted += 1
        return emit(kernel)

    def counted_compile(func: Any, goal: dict[str, Any]) -> bytes:
        found.compiled += 1
        return compile_tir(func, goal)

    monkeypatch.setattr(objects, "emit", counted_emit)
    monkeypatch.setattr(objects, "compile_tir", counted_compile)
    return found


def edit_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """What any edit of a file of kernels does, be it of a comment."""
    monkeypatch.setattr(kernels, "sources_digest", lambda: "edited")


def test_nothing_is_emitted_twice(counts) -> None:
    assert counts.compile() == (1, 1)
    assert counts.compile() == (0, 0)


def test_a_comment_compiles_nothing(counts, monkeypatch) -> None:
    counts.compile()
    edit_sources(monkeypatch)
    assert counts.compile() == (1, 0)
    assert counts.compile() == (0, 0)


def test_a_comment_is_an_edit(tmp_path) -> None:
    """So that whatever is emitted after it is looked at."""
    copy = tmp_path / "kernels"
    shutil.copytree(Path(kernels.__file__).parent, copy)
    before = kernels.sources_digest(copy)
    (copy / "added.py").write_text("# no code\n")
    kernels.sources_digest.cache_clear()
    assert kernels.sources_digest(copy) != before
    assert kernels.sources_digest() == before


def test_other_code_is_another_object(counts, monkeypatch) -> None:
    """The template writes something else for the same spec and schedule."""
    counts.compile()
    emit = objects.emit

    def edited(kernel: Kernel) -> Any:
        return emit(replace(kernel, spec=replace(SPEC, pixels=8)))

    monkeypatch.setattr(objects, "emit", edited)
    edit_sources(monkeypatch)
    assert counts.compile() == (1, 1)
    assert counts.compile() == (0, 0)


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("opt_level", 2),
        ("passes", ["BindTarget", "FlattenBuffer", "LowerIntrin"]),
        ("config", {"tirx.disable_assert": True}),
    ],
)
def test_another_pipeline_is_another_object(counts, monkeypatch, what, value) -> None:
    counts.compile()
    monkeypatch.setitem(objects.PIPELINE, what, value)
    assert counts.compile() == (1, 1)


def test_the_pipeline_is_what_compiles(monkeypatch) -> None:
    """No pass stands elsewhere: its list is what is looked up."""
    monkeypatch.setitem(objects.PIPELINE, "passes", ["NoSuchPass"])
    with pytest.raises(AttributeError, match="NoSuchPass"):
        objects.compile_tir(objects.emit(average()), GOAL)


def test_another_target_or_compiler_is_another_object(counts, monkeypatch) -> None:
    counts.compile()
    assert counts.compile(goal={**GOAL, "mattr": ["+avxvnni"]})[1] == 1
    monkeypatch.setattr(objects, "_compiler", lambda: {"tvm": "0.27.0.post1", "llvm": 23})
    assert counts.compile()[1] == 1


def test_a_symbol_says_what_is_computed() -> None:
    """Not what code that gives: edits leave it, so that two builds of a network differ where code does."""
    assert average().symbol == average().symbol
    assert average().symbol != average(replace(SPEC, pixels=8)).symbol


@pytest.mark.slow
def test_the_digest_of_tir_is_the_same_everywhere() -> None:
    """In another process, with other hashes of strings and other addresses."""
    code = (
        "from dataclasses import replace\n"
        "from inception_deploy.targets import objects, parse\n"
        "from inception_deploy.kernels.spec import GlobalAverage\n"
        "from inception_deploy.lower.lower import kernel_of\n"
        "spec = GlobalAverage(1, 1, 4)\n"
        "print(objects.tir_digest(objects.emit(replace(kernel_of(parse('cpu:avx2'), spec), symbol='k'))))"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.strip() == objects.tir_digest(objects.emit(replace(average(), symbol="k")))


# -- CUDA ------------------------------------------------------------------------------------------------------------
def test_machine_code_for_gpus_is_known_by_its_source(monkeypatch) -> None:
    key = cuda_compile.cubin_key("nvrtc 12.9", "sm_80", "void k();")
    assert cuda_compile.cubin_key("nvrtc 12.9", "sm_80", "void k();") == key
    assert cuda_compile.cubin_key("nvrtc 13.0", "sm_80", "void k();") != key
    assert cuda_compile.cubin_key("nvrtc 12.9", "sm_90", "void k();") != key
    assert cuda_compile.cubin_key("nvrtc 12.9", "sm_80", "void k() {}") != key
    monkeypatch.setattr(cuda_compile, "OPTIONS", ("--fmad=true",))
    assert cuda_compile.cubin_key("nvrtc 12.9", "sm_80", "void k();") != key


def test_cuda_is_written_again_after_an_edit_only(tmp_path, monkeypatch) -> None:
    from inception_deploy.targets import cuda_source

    monkeypatch.setenv("INCEPTION_DEPLOY_CACHE", str(tmp_path))
    written: list[Any] = []
    monkeypatch.setattr(cuda_source, "source", lambda functions: written.append(functions) or "void k();")
    kernel = kernel_of(targets.parse("cuda"), SPEC)

    def texts() -> tuple[str, int]:
        cuda_compile.kernel_source.cache_clear()
        return cuda_compile.kernel_source(kernel), len(written)

    assert [texts(), texts()] == [("void k();", 1)] * 2
    edit_sources(monkeypatch)
    assert texts() == ("void k();", 2)
    cuda_compile.kernel_source.cache_clear()
