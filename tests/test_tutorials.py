"""The tutorials, and the page of what is there: their commands in order, as printed, in an empty folder with what a reader would have. What needs
another machine or the network is left out by its first word; large networks are taken small, by the names in `SMALL`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PHOTO = ROOT / "examples" / "data" / "photo.jpg"
AWAY = ("curl ", "scp ", "ssh ", "pip install")
"""What fetches a file, or is for a machine that is not here."""

ELSEWHERE = ("ssh://", "resnet18-pi --image", "report resnet18-pi")
"""Parts of commands that are typed on a Raspberry Pi, or reach one."""

SMALL = {"digits_irv2": "digits_lenet", "--trials 64": "--trials 2"}


def commands(page: str) -> list[str]:
    """The lines of a page's blocks of shell, and the commands in the cells of its tables, in order."""
    text = (DOCS / page).read_text()
    found = []
    for block, row in re.findall(r"```sh\n(.*?)```|^(\|.*)$", text, flags=re.S | re.M):
        lines = block.splitlines() if block else re.findall(r"`(inception-deploy [a-z][^`]*)`", row)
        found += [line for line in lines if line.strip() and not line.startswith("#")]
    return found


def here(line: str) -> bool:
    program = line.split()[0]
    known = program in ("inception-deploy", "python") or shutil.which(program) is not None
    return known and not line.startswith(AWAY) and not any(part in line for part in ELSEWHERE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a reader has: pictures, pictures by class, a clone's examples, a network in a file and one as ONNX, a checkpoint."""
    from PIL import Image

    import inception_deploy as idp

    shutil.copy(PHOTO, tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    picture = Image.open(PHOTO).convert("RGB")
    wide, high = picture.size
    for index in range(8):
        for where in ("photos", f"labelled/{index % 2}"):
            path = tmp_path / where / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.crop((10 * index, 5 * index, wide - 7 * index, high - 3 * index)).save(path)
    (source,) = re.findall(
        r"```python\n(# net\.py\n.*?)```", (DOCS / "tutorials/own-network.md").read_text(), flags=re.S
    )
    (tmp_path / "net.py").write_text(source)
    idp.export(f"{tmp_path / 'net.py'}:build", tmp_path / "net.onnx", input_size=96, onnx_only=True)
    return tmp_path


def torchvisions_resnet18(path: Path) -> None:
    """A checkpoint with the names and the shapes of torchvision's resnet18, and random weights."""
    import torch

    torch.manual_seed(0)
    state: dict[str, torch.Tensor] = {}

    def conv(name: str, *shape: int) -> None:
        state[f"{name}.weight"] = torch.randn(shape) * (2 / (shape[1] * shape[2] * shape[3])) ** 0.5

    def norm(name: str, channels: int) -> None:
        for key, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            state[f"{name}.{key}"] = torch.full((channels,), value)
        state[f"{name}.num_batches_tracked"] = torch.tensor(1)

    conv("conv1", 64, 3, 7, 7)
    norm("bn1", 64)
    before = 64
    for stage, channels in enumerate((64, 128, 256, 512), 1):
        for block in range(2):
            name = f"layer{stage}.{block}"
            conv(f"{name}.conv1", channels, before, 3, 3)
            norm(f"{name}.bn1", channels)
            conv(f"{name}.conv2", channels, channels, 3, 3)
            norm(f"{name}.bn2", channels)
            if before != channels:
                conv(f"{name}.downsample.0", channels, before, 1, 1)
                norm(f"{name}.downsample.1", channels)
            before = channels
    state["fc.weight"], state["fc.bias"] = torch.randn(1000, 512) * 0.02, torch.zeros(1000)
    torch.save(state, path)


def followed(page: str, folder: Path, small: dict[str, str]) -> dict[str, str]:
    """Runs the commands of a page; gives what each printed."""
    tools = folder / "bin"
    tools.mkdir()
    (tools / "inception-deploy").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m inception_deploy "$@"\n')
    (tools / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    env = {**os.environ, "PATH": f"{tools}:/usr/bin:/bin"}
    said = {}
    for line in filter(here, commands(page)):
        typed = line
        for name, other in small.items():
            typed = typed.replace(name, other)
        done = subprocess.run(["bash", "-e", "-c", typed], cwd=folder, env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"{typed}\n{done.stdout[-2000:]}{done.stderr[-3000:]}"
        said[line] = done.stdout + done.stderr
    return said


def test_commands_of_pages_are_found() -> None:
    assert len(commands("tutorials/vta.md")) > 8
    assert len([line for line in commands("what-is-there.md") if here(line)]) >= 12
    assert not here("scp -r resnet18-pi pi@raspberrypi:")
    assert not here("inception-deploy bench resnet18-pi --device ssh://pi@raspberrypi --runs 50")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_what_is_there_is_shown(folder: Path) -> None:
    """Each command prints what the page tells to look for, and writes what it says."""
    row = r"^\| [^|]+ \| `(inception-deploy [^|`]+)` \| `([^`|]+)`"
    rows = re.findall(row, (DOCS / "what-is-there.md").read_text(), flags=re.M)
    assert len(rows) >= 12
    said = followed("what-is-there.md", folder, {"--trials 64": "--trials 2"})
    for command, told in rows:
        assert told in said[command], f"{command}\n{said[command]}"
    assert (folder / "digits-pi/run_model").exists()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", sorted(path.name for path in (DOCS / "tutorials").glob("*.md")))
def test_a_tutorial_is_followed(page: str, folder: Path) -> None:
    if "resnet18-f37072fd.pth" in (DOCS / "tutorials" / page).read_text():
        torchvisions_resnet18(folder / "resnet18-f37072fd.pth")
    assert followed(f"tutorials/{page}", folder, SMALL)
