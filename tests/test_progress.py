"""Progress: a line a stage where nobody watches, a bar that is not full while nobody knows the end where somebody does."""

from __future__ import annotations

import io
import re

import pytest

from inception_deploy import progress
from inception_deploy.progress import Stopwatch, terminal


def work(verbosity: int) -> None:
    with terminal(verbosity) as bar:
        bar.stage("read")
        bar.update(0, 0, "the file")
        bar.update(0, 0, "the file")
        bar.note("mind the gap")
        bar.stage("write")
        bar.update(1, 2, "half")


def shown(verbosity: int, capsys: pytest.CaptureFixture[str]) -> list[str]:
    work(verbosity)
    out, err = capsys.readouterr()
    assert out == ""
    return [re.sub(r"\d+\.\d\d s", "T", line) for line in err.splitlines()]


def test_a_line_a_stage_with_its_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(0, capsys) == ["mind the gap", "read: T", "write: T"]
    assert shown(1, capsys) == ["  the file", "mind the gap", "read: T", "  half", "write: T"]
    assert shown(-1, capsys) == []


def test_a_stage_that_fails_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), terminal() as bar:
        bar.stage("divide")
        _ = 1 / 0
    assert re.fullmatch(r"divide failed after: \d+\.\d\d s\n", capsys.readouterr().err)


def test_a_bar_without_a_total_is_not_full(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(progress.sys, "stderr", Terminal())
    with terminal() as bar:
        bar.stage("optimise")
        bar.update(0, 0, "fold")
        (task,) = bar._bar.tasks  # type: ignore[attr-defined]
        assert not task.finished
        bar.update(1, 4, "fuse")
        assert task.percentage == 25
        bar.stage("lower")
        assert task.finished


def test_a_stopwatch_passes_on_what_it_times(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal() as bar:
        watch = Stopwatch(bar)
        watch.stage("a")
        watch.stage("b")
        watch.stage("a")
        assert list(watch.seconds()) == ["a", "b"]
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["a", "b", "a"]
