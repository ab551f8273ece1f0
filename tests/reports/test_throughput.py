"""Images a second of several streams: of functions whose time is known, and of engines on a tiny bundle."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from inception_deploy import bench
from inception_deploy.bundles import engines
from inception_deploy.errors import UsageError
from inception_deploy.reports.throughput import measure, rate, throughput
from inception_deploy.runtime import bundle


def test_streams_run_at_the_same_time() -> None:
    """Each call waits for one of the other stream's: alone none would ever end."""
    barrier = threading.Barrier(2)
    calls: list[int] = []

    def one(index: int) -> None:
        barrier.wait(timeout=60)
        calls.append(index)

    assert rate([lambda: one(0), lambda: one(1)], 0.0, 4) > 0
    assert sorted(calls) == [0] * 4 + [1] * 4


def test_a_rate_is_calls_over_time() -> None:
    """Streams that sleep do not hinder each other: of two of them twice as many calls."""
    began = time.perf_counter()
    done: list[int] = []
    sleep = 0.01
    found = rate([lambda: (time.sleep(sleep), done.append(1))] * 2, 10 * sleep)
    longest = time.perf_counter() - began
    assert len(done) / longest <= found
    assert found * sleep <= 2
    assert len(done) >= 6


def test_engines_take_turns() -> None:
    order: list[str] = []
    calls = {name: [lambda name=name: order.append(name)] for name in "ab"}
    rates = measure(calls, rounds=3, window_s=0.0)
    assert {name: len(found) for name, found in rates.items()} == {"a": 3, "b": 3}
    assert "".join(order) == "ab" + "aaabbb" + "bbbaaa" + "aaabbb"


def test_a_stream_that_fails_is_an_error() -> None:
    def broken() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        rate([broken, lambda: None], 0.0)


def test_streams_of_onnxruntime(tiny_bundle: Path) -> None:
    with bundle.open(tiny_bundle) as opened:
        (row,) = throughput(opened, ["onnxruntime"], 3)
        assert row["threads"] == max(1, engines.default_threads() // 3)
        assert {"engine": "onnxruntime", "streams": 3, "rounds": 5}.items() <= row.items()
        assert row["images_per_second"] > 0
        with pytest.raises(UsageError, match="--streams is not for torch"):
            throughput(opened, ["torch"], 2)


def test_what_streams_are_not_for(tiny_bundle: Path) -> None:
    with pytest.raises(UsageError, match="--streams are of a library without an accelerator"):
        bench(tiny_bundle, streams=2, driver="driver.so")
    with pytest.raises(UsageError, match="--streams are for this machine"):
        bench(tiny_bundle, streams=2, device="ssh://nobody")
