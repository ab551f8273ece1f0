"""examples/ray_batch.py on a Ray of this machine: what `load` sees, in shards, and on after a stop."""

from __future__ import annotations

import csv
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import inception_deploy as idp

ROOT = Path(__file__).resolve().parents[1]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(importlib.util.find_spec(name) for name in ("ray", "pyarrow", "pandas")),
        reason="Ray is not installed: pip install 'ray[data]'",
    ),
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ray") / "digits"
    idp.export(ROOT / "examples" / "data" / "digits_lenet.safetensors", path, batch=4)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """25 digits in two folders, and a file that is no picture."""
    folder = tmp_path_factory.mktemp("photos")
    with np.load(ROOT / "examples" / "data" / "digits_heldout.npz") as held_out:
        images = held_out["images"][:25]
    for index, image in enumerate(images):
        path = folder / f"part{index % 2}" / f"{index:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image.squeeze()).save(path)
    (folder / "part1" / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """The environment in which a Ray of this machine is joined. Ray gives a start 30 s, which a busy machine exceeds."""
    start = "import ray; node = ray.init(include_dashboard=False); print(node['gcs_address'], flush=True); input()"
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    for _ in range(5):
        head = subprocess.Popen(
            [sys.executable, "-c", start], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment,
        )  # fmt: skip
        assert head.stdout is not None
        address = head.stdout.readline().strip()
        if address:
            yield {**environment, "RAY_ADDRESS": address}
            head.communicate("\n")
            return
        _, told = head.communicate()
        if "timed out during startup" not in told:
            pytest.fail(told)
    pytest.skip("this machine is too busy: Ray did not start in five times 30 s")


def run(cluster: dict[str, str], *argv: object) -> str:
    command = [sys.executable, str(ROOT / "examples" / "ray_batch.py"), *map(str, argv)]
    done = subprocess.run(command, capture_output=True, text=True, env=cluster)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(folder: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_a_folder_in_shards_and_on_after_a_stop(
    cluster: dict[str, str], bundle: Path, photos: Path, tmp_path: Path
) -> None:
    argv = (bundle, photos, "-o", tmp_path / "out", "--shard", 10, "--top", 3)
    assert "shard-00002.parquet: 6 pictures, 1 of them cannot be read" in run(cluster, *argv)
    found = rows(tmp_path / "out")
    paths = sorted(photos.rglob("*.png"))
    assert [row["id"] for row in found] == [path.relative_to(photos).as_posix() for path in paths]
    (broken,) = [row for row in found if row["error"]]
    assert (broken["id"], broken["index"]) == ("part1/broken.png", [])
    network = idp.load(bundle)
    for row, path in zip(found, paths, strict=True):
        if row is not broken:
            best = network(path).top(3)
            assert row["index"] == [guess.index for guess in best]
            assert row["label"] == [guess.label for guess in best]
            assert row["score"] == [guess.score for guess in best]

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    gone = tmp_path / "out" / "shard-00001.parquet"
    gone.unlink()
    told = run(cluster, *argv)
    assert told.count("is there") == 2
    assert rows(tmp_path / "out") == found
    assert {path for path, at in before.items() if path.stat().st_mtime_ns != at} == {gone}

    other = [sys.executable, str(ROOT / "examples" / "ray_batch.py"), *map(str, argv[:-1]), "2"]
    refused = subprocess.run(other, capture_output=True, text=True)
    assert (refused.returncode, "holds shards of another top; take another folder" in refused.stderr) == (1, True)


def test_parquet_to_csv(cluster: dict[str, str], bundle: Path, photos: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = sorted(photos.rglob("[0-9]*.png"))[:5]
    # One id twice: rows are told apart by their place.
    table = {"id": [7, 7, 8, 9, 10], "image": [path.read_bytes() for path in paths], "more": [0] * 5}
    pq.write_table(pa.table(table), tmp_path / "pictures.parquet")
    run(
        cluster,
        bundle,
        tmp_path / "pictures.parquet",
        "-o",
        tmp_path / "out",
        "--format",
        "csv",
        "--top",
        2,
        "--actors",
        2,
    )
    with (tmp_path / "out" / "shard-00000.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["id"] for row in found] == ["7", "7", "8", "9", "10"]
    network = idp.load(bundle)
    for row, path in zip(found, paths, strict=True):
        assert row["index"] == "|".join(str(guess.index) for guess in network(path).top(2))
