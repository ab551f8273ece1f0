"""Handwritten digits on an FPGA's accelerator that is not there: a trained network for VTA, run on the simulator.

    python examples/vta_digits.py
    python examples/vta_digits.py --network resnet18 --target vta:pynq

Exports a small trained network in int8 for a VTA, classifies the digits it never saw on the built-in simulator, and
says what the accelerator does of it and how long a board would take, which is an estimate.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import inception_deploy as idp
from inception_deploy import progress

DATA = Path(__file__).resolve().parent / "data"


def main() -> int:
    """Run the example; 0 when all went well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    networks = sorted(path.stem.removeprefix("digits_") for path in DATA.glob("digits_*.safetensors"))
    parser.add_argument("--network", default="irv2", choices=networks, help="which one (default: irv2)")
    parser.add_argument("--target", default="vta:sim", help="vta:sim (default), vta:pynq, vta:zcu104, ...")
    parser.add_argument("--output", type=Path, default=Path("build/digits-vta"), help="where the bundle goes")
    options = parser.parse_args()
    model, digits = DATA / f"digits_{options.network}.safetensors", DATA / "digits_heldout.npz"
    try:
        with progress.terminal() as bar:
            taken = {
                "calibration": digits,
                "effort": "fast",
                "program": False,
                "force": True,
            }  # what they leave out takes minutes
            idp.export(model, options.output, target=options.target, **taken, progress=bar)
            seen = idp.evaluate(options.output, digits, runtime=["compiled"], progress=bar)
            vta = idp.inspect(options.output, progress=bar)["vta"]
    except idp.DeployError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return error.exit_code
    (engine,) = seen["engines"]
    print(f"accuracy on {seen['images']} held-out digits, simulated: {engine['top1']:.2f} %")
    steps = f"{len(vta['steps'])} steps in {vta['streams']} streams"
    print(f"on the VTA: {vta['macs_percent']:g} % of the multiply-adds, {steps}")
    print(f"estimate for {vta['board']}: {vta['ms']:.2f} ms a picture, beside its host")
    for row in vta["kept"]:
        print(f"  {row['node']} stays on the host: {row['reason']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
