"""Executed instructions of one inference on an ARM core, under qemu's user mode.

    python benchmarks/arm/count.py m-rpi4 m-pynq [--top 8]

takes bundles for ARM and prints a line for each: millions of instructions on one thread, the share of its most frequent
ones, and instructions for each vector of four multiply-adds. What a core does with them, how many at once and in which
order, no count tells: it is an estimate of speed, and says where a kernel wastes instructions.

`--peer ROOT` counts onnxruntime's aarch64 wheel on each bundle's own ONNX, too, and says ours / its. ROOT is a folder
with a Python for arm64 and the wheel; it takes no rights to make (Debian):

    apt="apt-get -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State=$PWD/apt -o Dir::Cache=$PWD/apt"
    mkdir -p apt/lists/partial apt/archives/partial root/site debs
    apt="$apt -o Dir::State::status=/dev/null"
    $apt update && (cd debs && $apt download python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 \\
        libexpat1 zlib1g libssl3 libbz2-1.0 liblzma5 libffi8 libstdc++6 libgcc-s1 libuuid1)
    for deb in debs/*; do dpkg-deb -x $deb root; done
    pip download --no-deps --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \\
        --platform manylinux2014_aarch64 --python-version 311 --only-binary=:all: -d wheels \\
        onnxruntime numpy flatbuffers protobuf packaging
    for wheel in wheels/*; do python -m zipfile -e $wheel root/site; done

onnxruntime reads the core from /proc/cpuinfo, of which ROOT gets one of the bundle's core.

Needs qemu with plugins (Debian: qemu-user, not qemu-user-static) and a C compiler.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from inception_deploy.errors import DeployError
from inception_deploy.runtime import bundle as bundles

QEMU = {"aarch64": "qemu-aarch64", "armv7l": "qemu-arm"}
EMULATED = {"cortex-a72", "cortex-a53", "cortex-a76", "neoverse-n1", "cortex-a9"}
PLUGIN = Path(__file__).with_name("count.c")
LANES = 4


def plugin(folder: Path) -> Path:
    """`count.c`, compiled."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise DeployError("there is no C compiler to build the plugin with", kind="install", allowed="cc, gcc or clang")
    built = folder / "count.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", built, PLUGIN], check=True)
    return built


def executed(
    program: Path, machine: str, core: str, built: Path, *options: str, root: Path | None = None
) -> Counter[str]:
    """The instructions of one run of a program, by their names.

    Args:
        root: where it finds its libraries, and Python's.
    """
    qemu = shutil.which(QEMU.get(machine, ""))
    if qemu is None:
        needed = QEMU.get(machine, "an ARM bundle")
        raise DeployError(f"counting needs {needed} (Debian: apt-get install qemu-user)", kind="install", got=machine)
    log = built.with_name("counts.txt")
    log.unlink(missing_ok=True)
    cpu = core if core in EMULATED else "max"
    there = []
    if root is not None:
        python = {"PYTHONPATH": f"{root}/site", "PYTHONHOME": f"{root}/usr", "PYTHONHASHSEED": "0"}
        there = ["-L", str(root), *(word for item in python.items() for word in ("-E", "=".join(item)))]
    command = [qemu, *there, "-cpu", cpu, "-plugin", str(built), "-d", "plugin", "-D", str(log), str(program), *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    counts: Counter[str] = Counter()
    for line in log.read_text().splitlines():
        name, _, number = line.rpartition(" ")
        counts[name] += int(number)
    return counts


def inference(bundle: bundles.Bundle, built: Path) -> Counter[str]:
    """The instructions of one inference on one thread.

    `--repeat 2` runs it three times and the default once: reading the weights and the rest is in both.
    """
    details = bundle.manifest["target_details"]
    program, usual = bundle.folder / "run_model", ("--random", "--threads", "1", "--top", "0")
    program.chmod(0o755)
    once = executed(program, details["machine"], details["variant"], built, *usual)
    thrice = executed(program, details["machine"], details["variant"], built, *usual, "--repeat", "2")
    return Counter({name: round((number - once[name]) / 2) for name, number in thrice.items()})


PARTS = {"cortex-a72": "0xd08", "cortex-a53": "0xd03", "cortex-a76": "0xd0b", "neoverse-n1": "0xd0c"}
"""Arm's numbers of the cores that qemu has."""


def onnxruntime(bundle: bundles.Bundle, built: Path, root: Path) -> Counter[str]:
    """The instructions of one inference by onnxruntime on one thread: as `inference`.

    Raises:
        DeployError: the bundle's core is none that onnxruntime runs on here.
    """
    details = bundle.manifest["target_details"]
    core, int8 = details["variant"], bundle.folder / "model.int8.onnx"
    if core not in PARTS:
        raise DeployError(f"onnxruntime is not counted on {core}", kind="target", got=core, allowed=list(PARTS))
    dot = " asimddp" if "asimddp" in details["features"] else ""
    told = (
        f"Features\t: fp asimd{dot} atomics\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: {PARTS[core]}\n"
    )
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc" / "cpuinfo").write_text(f"processor\t: 0\n{told}\n")
    model = int8 if int8.is_file() else bundle.folder / "model.onnx"
    python, script = next((root / "usr" / "bin").glob("python3.*")), str(Path(__file__).with_name("peer.py"))
    # the first run compiles Python's modules, into files that the others find
    runs = [executed(python, "aarch64", core, built, script, str(model), times, root=root) for times in ("1", "1", "9")]
    return Counter({name: round((number - runs[1][name]) / 8) for name, number in runs[2].items()})


def main(argv: list[str]) -> int:
    """The table; gives the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundle", nargs="+", type=Path)
    parser.add_argument("--top", type=int, default=8, metavar="N", help="name so many instructions (default: 8)")
    parser.add_argument("--peer", type=Path, metavar="ROOT", help="count onnxruntime of this root, too")
    options = parser.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as folder:
            built = plugin(Path(folder))
            for path in options.bundle:
                with bundles.open(path) as bundle:
                    counts = inference(bundle, built)
                    vectors = bundle.manifest["cost"]["macs"] / LANES
                    peer = onnxruntime(bundle, built, options.peer.resolve()).total() if options.peer else None
                total = counts.total()
                shares = ", ".join(f"{name} {100 * n / total:.0f} %" for name, n in counts.most_common(options.top))
                print(f"{path}: {total / 1e6:.1f} M, {total / vectors:.2f} a vector of multiply-adds: {shares}")
                if peer:
                    print(f"{path}: onnxruntime {peer / 1e6:.1f} M, ours / its {total / peer:.3f}")
    except DeployError as error:
        print(error.message, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
