"""Databases of `tune` as the file of records that the package ships for this machine's core.

    inception-deploy tune --model googlenet --target cpu --trials 64 -o googlenet.db
    inception-deploy tune --model mobilenet_v1 --target cpu --trials 64 -o mobilenet.db
    python benchmarks/ship_records.py googlenet.db mobilenet.db -o toolkit/tuning/data

Only what a whole network kept is taken (`settled.json`), and of a layer that several networks have, the choice that
gained most.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from inception_deploy import artifact, targets
from inception_deploy.errors import DeployError
from inception_deploy.targets import cores
from inception_deploy.tuning import shipped, tuned


def main() -> int:
    """Read, merge, write; an exit code of the package's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("databases", nargs="+", type=Path, help="folders that `tune -o` wrote, for target cpu")
    parser.add_argument("-o", "--output", required=True, type=Path, help="the folder of the file")
    parser.add_argument("--core", default=cores.here(), help="of the machine that measured (default: this one's)")
    options = parser.parse_args()
    if options.core is None:
        parser.error("this machine's core is none of inception_deploy.targets.cores: say --core")
    target = tuned.tunable(targets.parse("cpu"))
    found = []
    try:
        for folder in options.databases:
            model = json.loads((folder / "tuning.json").read_text(encoding="utf-8"))["model"]
            loaded = tuned.load(folder, model, target)
            found += loaded.choices.values()
            print(f"{folder}: {model}, {len(loaded.choices)} choices", *loaded.passed_over, sep="; ")
    except DeployError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return error.exit_code
    with artifact.atomic_file(options.output / f"{options.core}.json") as path:
        artifact.dump_json(shipped.document(options.core, target, found), path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
