"""The count of instructions: a program that executes a known number of one."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from inception_deploy.targets import link

ROOT = Path(__file__).resolve().parents[2]

LOOP = """
#include <stdlib.h>
int main(int argc, char **argv) {
  long n = argc > 1 ? atol(argv[1]) : 0;
  for (long i = 0; i < n; ++i) __asm__ volatile("rbit x9, x9" ::: "x9");
  return 0;
}
"""


def test_a_known_number_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not shutil.which("qemu-aarch64") or not shutil.which("cc"):
        pytest.skip("needs qemu-aarch64 with plugins and cc (Debian: apt-get install qemu-user gcc)")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "arm"))
    monkeypatch.delitem(sys.modules, "count", raising=False)
    import count

    built = count.plugin(tmp_path)
    program = tmp_path / "loop"
    link.link_program([link.compile_c(LOOP, "loop.c", "aarch64-linux-gnu", musl=True)], program, "aarch64-linux-gnu")
    none = count.executed(program, "aarch64", "cortex-a72", built)
    many = count.executed(program, "aarch64", "cortex-a72", built, "12345")
    assert many["rbit"] - none["rbit"] == 12345
    assert 3 * 12345 < (many - none).total() < 8 * 12345
