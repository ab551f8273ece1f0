"""Classify any number of pictures on a Ray cluster, from a bundle, into Parquet or CSV; goes on where it was stopped.

    pip install 'ray[data]'
    python examples/ray_batch.py irv2-cpu photos/ -o classes/             # a folder of pictures, however deep
    python examples/ray_batch.py irv2-cpu pictures/*.parquet -o classes/  # columns `id`, and `image`: encoded bytes
    python examples/ray_batch.py irv2-cpu photos/ -o classes/ --actors 8 --threads 2 --format csv

The pictures are cut into shards, in a fixed order. Each shard is classified by actors that hold the bundle opened, and
written whole to classes/shard-00000.parquet; a shard whose file is there is left out, so the same command goes on after
a stop. Its rows: `id` (the path below the folder, or the column of the Parquet file), `index`, `label` and `score` of
each of the best classes (lists, best first; in CSV joined by |), and `error`, null where the picture could be read.

Each machine needs inception-deploy (numpy and Pillow, no builder), the bundle and the pictures under the same paths.
Actors start anew for each shard, which takes some seconds: a shard should be minutes of work.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

import inception_deploy as idp
from inception_deploy.runtime.preprocessing import pictures_below

Row = dict[str, Any]
_JOB = "job.json"


class Classifier:
    """An actor: one bundle, opened once. A picture that cannot be read gets an `error` and stops nothing."""

    def __init__(self, bundle: str, threads: int, top: int) -> None:
        self.network, self.top = idp.load(bundle, threads=threads), top

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """`row`, `id` and `image` or `path` of some pictures -> `row`, `id`, `index`, `label`, `score`, `error`."""
        result: dict[str, list[Any]] = {
            "row": list(batch["row"]),
            "id": list(batch["id"]),
            "index": [],
            "label": [],
            "score": [],
            "error": [],
        }
        pictures, errors = [], []
        for given in batch["image"] if "image" in batch else batch["path"]:
            picture, error = self._open(given)
            pictures += [] if picture is None else [picture]
            errors.append(error)
        tops = iter(self.network(pictures).tops(self.top) if pictures else ())
        for error in errors:
            best = [] if error else next(tops)
            result["index"].append([guess.index for guess in best])
            result["label"].append([guess.label for guess in best])
            result["score"].append([guess.score for guess in best])
            result["error"].append(error)
        return result

    def _open(self, given: bytes | str) -> tuple[Any, str | None]:
        from PIL import Image

        try:
            picture = Image.open(io.BytesIO(given) if isinstance(given, bytes) else given)
            picture.load()
            return picture, None
        except Exception as error:  # a file can be damaged in more ways than Pillow has exceptions for
            return None, f"{type(error).__name__}: {error}"


def shards(given: list[Path], size: int) -> Iterator[list[Row]]:
    """The rows of each shard, in an order that depends on the names alone; pictures of a folder by path, unread."""
    rows = _below(given[0]) if len(given) == 1 and given[0].is_dir() else _in_parquet(given)
    while shard := list(itertools.islice(rows, size)):
        yield shard


def _below(folder: Path) -> Iterator[Row]:
    for path in pictures_below(folder):
        yield {"id": path.relative_to(folder).as_posix(), "path": str(path.resolve())}


def _in_parquet(files: list[Path]) -> Iterator[Row]:
    for file in sorted(files):
        for batch in pq.ParquetFile(file).iter_batches(batch_size=256, columns=["id", "image"]):
            for row in batch.to_pylist():
                yield {**row, "id": str(row["id"])}


SCHEMA = pa.schema(
    [("id", pa.string()), ("index", pa.list_(pa.int64())), ("label", pa.list_(pa.string())),
     ("score", pa.list_(pa.float64())), ("error", pa.string())]
)  # fmt: skip


LISTS = ("index", "label", "score")


def write(rows: list[Row], path: Path) -> None:
    """A shard's rows as Parquet or CSV, by the path's ending; the file is there whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    if path.suffix == ".csv":
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, SCHEMA.names)
            writer.writeheader()
            for row in rows:
                cells = {name: row[name] for name in SCHEMA.names}
                writer.writerow({name: "|".join(map(str, v)) if name in LISTS else v for name, v in cells.items()})
    else:
        columns = {name: [row[name] for row in rows] for name in SCHEMA.names}
        pq.write_table(pa.table(columns, schema=SCHEMA), partial)
    partial.replace(path)


def agree(output: Path, job: dict[str, Any]) -> str | None:
    """Why shards that lie in `output` are of another job than this; None where they are not, and it is written down."""
    path = output / _JOB
    output.mkdir(parents=True, exist_ok=True)
    if path.exists():
        before = json.loads(path.read_text())
        other = [key for key in job if job[key] != before.get(key)]
        return f"{output} holds shards of another {', '.join(other)}; take another folder" if other else None
    path.write_text(json.dumps(job, indent=2, sort_keys=True) + "\n")
    return None


def main() -> int:
    """Classify what is not classified yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("pictures", type=Path, nargs="+", help="one folder, or Parquet files")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the folder of the shards")
    parser.add_argument("--format", choices=("parquet", "csv"), default="parquet")
    parser.add_argument("--top", type=int, default=5, help="classes a picture (default: 5)")
    parser.add_argument("--shard", type=int, default=4096, help="pictures a file (default: 4096)")
    parser.add_argument("--actors", type=int, default=1, help="copies of the network (default: 1)")
    parser.add_argument("--threads", type=int, default=1, help="cores of each (default: 1)")
    options = parser.parse_args()
    bundle = options.bundle.resolve()
    told = json.loads((bundle / "manifest.json").read_text())["files"] if bundle.is_dir() else str(bundle)
    job = {"bundle": told, "pictures": [str(path.resolve()) for path in sorted(options.pictures)], "top": options.top,
           "shard": options.shard, "format": options.format}  # fmt: skip
    if reason := agree(options.output, job):
        print(f"error: {reason}", file=sys.stderr)
        return 1
    # A cluster that is named is joined, by default one of this machine is started.
    ray.init(log_to_driver=False, **({} if "RAY_ADDRESS" in os.environ else {"include_dashboard": False}))
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    ray.data.DataContext.get_current().enable_progress_bars = False
    for number, rows in enumerate(shards(options.pictures, options.shard)):
        path = options.output / f"shard-{number:05}.{options.format}"
        if path.exists():
            print(f"{path} is there", flush=True)
            continue
        numbered = [{"row": place, **row} for place, row in enumerate(rows)]
        blocks = min(len(rows), 4 * options.actors)
        classified = ray.data.from_items(numbered, override_num_blocks=blocks).map_batches(
            Classifier,
            fn_constructor_args=(os.fspath(bundle), options.threads, options.top),
            batch_size=32,
            compute=ray.data.ActorPoolStrategy(size=options.actors),
            num_cpus=options.threads,
        )
        found = sorted(classified.take_all(), key=lambda row: row["row"])  # blocks come in any order
        write(found, path)
        wrong = sum(row["error"] is not None for row in found)
        print(f"{path}: {len(found)} pictures{f', {wrong} of them cannot be read' if wrong else ''}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
