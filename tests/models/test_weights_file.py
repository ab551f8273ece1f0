"""Weights files as people have them: the wrappers, the prefixes and the extras of training scripts, and what is no weights."""

from __future__ import annotations

import argparse
import collections
import datetime
import io
import pathlib
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from inception_deploy.errors import DeployError
from inception_deploy.models import checkpoint, pickles, weights_file


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.encoder = nn.Linear(4, 4)
        self.classifier = nn.Linear(4, 2)


def state(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.rand(value.shape, generator=generator) if value.is_floating_point() else value
        for key, value in Net().state_dict().items()
    }


def filled(file: Path, *, ema: bool = False) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    module = Net()
    notes = checkpoint.load(module, file, ema=ema).notes
    return module.state_dict(), notes


def same(got: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, wanted[key]) for key, value in got.items() if "num_batches" not in key)


def saved(path: Path, content: object, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def renamed(change: Callable[[str], str], seed: int = 0) -> dict[str, Tensor]:
    return {change(key): value for key, value in state(seed).items()}


@pytest.mark.parametrize("name", ["w.pth.tar", "w.ckpt", "w.bin", "w.PTH", "w", "w.safetensors.bak"])
@pytest.mark.parametrize("how", ["zip", "legacy", "safetensors"])
def test_the_format_is_found_by_content(tmp_path: Path, name: str, how: str) -> None:
    if how == "safetensors":
        save_file(state(), tmp_path / name)
    else:
        saved(tmp_path / name, state(), _use_new_zipfile_serialization=how == "zip")
    got, notes = filled(tmp_path / name)
    assert same(got, state())
    assert notes == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda key: f"module.{key}", "left out of its names: module"),
        (lambda key: f"_orig_mod.module.{key}", "left out of its names: _orig_mod, module"),
        (lambda key: f"module._orig_mod.model.net.backbone.{key}", "module, _orig_mod, model, net, backbone"),
        (lambda key: key.replace("features.", "features.module."), "left out of its names: module"),
        (lambda key: f"model.{key.replace('classifier.', 'classifier._orig_mod.')}", "model, _orig_mod"),
        (lambda key: f"encoder.{key}", "left out of its names: encoder"),
        (lambda key: key.replace("encoder.", ""), "put into them: encoder"),
    ],
)
def test_words_of_wrappers_are_found_and_told(tmp_path: Path, change: Callable[[str], str], said: str) -> None:
    got, notes = filled(saved(tmp_path / "w.pth", renamed(change)))
    assert same(got, state())
    assert len(notes) == 1
    assert said in notes[0]


def test_a_name_that_two_of_the_files_could_mean_is_not_guessed(tmp_path: Path) -> None:
    both = renamed(lambda key: f"backbone.{key}") | renamed(lambda key: f"net.{key}", seed=1)
    with pytest.raises(DeployError, match="does not fit the module: 10 missing"):
        filled(saved(tmp_path / "w.pth", both))


def test_a_module_in_a_wrapper_takes_names_without_it(tmp_path: Path) -> None:
    module = nn.DataParallel(Net())
    notes = checkpoint.load(module, saved(tmp_path / "w.pth", state())).notes
    assert same(module.module.state_dict(), state())
    assert notes == (f"{tmp_path / 'w.pth'}: put into them: module",)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda own: {"state_dict": own, "epoch": 3, "optimizer": {"state": {0: {"step": torch.ones(1)}}}},
        lambda own: {"model_state_dict": own, "loss": 0.5},
        lambda own: {"model": {"state_dict": own}},
        lambda own: {"net": own},
        lambda own: {"weights": own},
        lambda own: {"checkpoint": {"model": own}, "optimizer": {"state": {}, "param_groups": []}},
        lambda own: {"my_net": own, "args": argparse.Namespace(lr=0.1)},
        lambda own: {**own, "epoch": 3},
    ],
)
def test_wrappers(tmp_path: Path, wrap: Callable[[dict[str, Tensor]], object]) -> None:
    assert same(filled(saved(tmp_path / "w.pth", wrap(state())))[0], state())


@pytest.mark.parametrize(
    "pack",
    [
        lambda plain, averaged: {"model": plain, "model_ema": averaged},
        lambda plain, averaged: {"state_dict": plain, "state_dict_ema": averaged},
        lambda plain, averaged: {"checkpoint": {"model": plain, "ema": {"module": averaged}}},
        lambda plain, averaged: {
            **{f"model.{key}": value for key, value in plain.items()},
            **{f"ema_model.module.{key}": value for key, value in averaged.items()},
            "ema_model.n_averaged": torch.tensor(7),
        },
    ],
)
def test_averaged_weights_are_chosen_with_ema(tmp_path: Path, pack: Callable[..., object]) -> None:
    file = saved(tmp_path / "w.pth", pack(state(0), state(1)))
    got, notes = filled(file)
    assert same(got, state(0))
    assert "--ema takes the" in " ".join(notes)
    got, notes = filled(file, ema=True)
    assert same(got, state(1))
    assert "averaged" in " ".join(notes)


def test_averaged_weights_are_taken_where_there_are_no_others(tmp_path: Path) -> None:
    got, notes = filled(saved(tmp_path / "w.pth", {"epoch": 3, "model_ema": state()}))
    assert same(got, state())
    assert notes == (f"{tmp_path / 'w.pth'}: the averaged weights, 'model_ema', are taken: it has no others",)


def test_averaged_weights_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="holds no averaged weights, which --ema asks for"):
        filled(saved(tmp_path / "w.pth", {"model": state()}), ema=True)


EXTRAS: dict[str, object] = {
    "args": argparse.Namespace(lr=0.1, out=Path("runs/1"), when=datetime.datetime(2024, 5, 17, 12)),
    "paths": [Path("a/b"), pathlib.PurePosixPath("/x"), pathlib.PureWindowsPath("C:/x")],
    "best": np.float64(0.93),
    "count": np.int64(7),
    "flag": np.bool_(True),
    "dtype": np.dtype("float32"),
    "curve": np.arange(3.0),
    "set": {1, 2},
    "frozen": frozenset("ab"),
    "took": datetime.timedelta(seconds=5),
    "size": torch.Size([1, 3]),
    "device": torch.device("cpu"),
    "kind": torch.float16,
    "ordered": collections.OrderedDict(a=1),
    "counted": collections.Counter("aab"),
    "default": collections.defaultdict(list, a=[1]),
    "none": None,
}


@pytest.mark.parametrize("name", EXTRAS)
@pytest.mark.parametrize("zipped", [True, False])
def test_harmless_extras_do_no_harm(tmp_path: Path, name: str, zipped: bool) -> None:
    content = {"state_dict": state(), name: EXTRAS[name]}
    file = saved(tmp_path / "w.pth", content, _use_new_zipfile_serialization=zipped)
    assert same(filled(file)[0], state())


def test_counters_are_no_weights(tmp_path: Path) -> None:
    counted = state() | {"total_ops": torch.zeros(1), "features.0.total_params": torch.zeros(1)}
    counted = {key: value for key, value in counted.items() if "num_batches_tracked" not in key}
    assert same(filled(saved(tmp_path / "w.pth", counted))[0], state())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_other_precisions_become_float32_and_it_is_said(tmp_path: Path, dtype: torch.dtype) -> None:
    other = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state().items()}
    got, notes = filled(saved(tmp_path / "w.pth", other))
    assert all(torch.equal(value, other[key].float()) for key, value in got.items() if "num_batches" not in key)
    kind = str(dtype).removeprefix("torch.")
    assert notes == (f"{tmp_path / 'w.pth'}: 10 tensors are {kind}; they are converted to float32",)


def test_a_float64_beyond_float32_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match=r"holds infinities or NaN: classifier\.bias"):
        filled(saved(tmp_path / "w.pth", state() | {"classifier.bias": torch.full((2,), 1e300, dtype=torch.float64)}))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: torch.eye(2).to_sparse(), r"is sparse \(sparse_coo\)"),
        (lambda: torch.eye(2).to_sparse_csr(), r"is sparse \(sparse_csr\)"),
        (lambda: torch.quantize_per_tensor(torch.eye(2), 0.1, 0, torch.qint8), "is quantized"),
        (lambda: torch.eye(2, device="meta"), "is a meta tensor, which has a shape and no numbers"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # torch's own, of its beta formats
def test_tensors_without_plain_numbers_are_refused_by_name(
    tmp_path: Path, make: Callable[[], Tensor], said: str
) -> None:
    with pytest.raises(DeployError, match=f"tensor 'classifier.weight' {said}"):
        filled(saved(tmp_path / "w.pth", state() | {"classifier.weight": make()}))


@pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated
def test_a_torchscript_archive_is_refused_with_the_way_out(tmp_path: Path) -> None:
    torch.jit.script(nn.Sequential(nn.Linear(2, 2))).save(tmp_path / "w.pt")
    with pytest.raises(DeployError, match="is a TorchScript archive, which is code, not weights") as caught:
        filled(tmp_path / "w.pt")
    assert "model = torch.jit.load('w.pt'); torch.save(model.state_dict(), 'weights.pth')" in str(caught.value.allowed)


@pytest.mark.parametrize("wrap", [lambda module: module, lambda module: {"epoch": 1, "model": module}])
def test_a_whole_module_is_refused_with_the_way_out(tmp_path: Path, wrap: Callable[[nn.Module], object]) -> None:
    with pytest.raises(DeployError, match="holds a whole pickled module") as caught:
        filled(saved(tmp_path / "w.pth", wrap(nn.Sequential(nn.Linear(2, 2)))))
    assert "torch.save(model.state_dict(), 'weights.pth')" in str(caught.value.allowed)


# -- traps ----------------------------------------------------------------------------------------------------------


def archive(path: Path, pickle: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as out:
        out.writestr("a/data.pkl", pickle)
        out.writestr("a/version", "3\n")
    path.write_bytes(buffer.getvalue())
    return path


def doubled(times: int) -> bytes:
    """A tuple of two of the tuple before it, `times` times, as the key of a dict: nobody finishes to hash it."""
    twice = b"".join(b"q%ch%c\x86" % (n, n) for n in range(times))
    return b"\x80\x02}(K\x01" + twice + b"K\x02u."


@pytest.mark.parametrize(
    ("pickle", "compression"),
    [
        (b"\x80\x02" + b"(" * 10_000_000, zipfile.ZIP_DEFLATED),
        (b"\x80\x02" + b"(" * 2_000_000, zipfile.ZIP_STORED),
        (doubled(100), zipfile.ZIP_STORED),
        (b"\x80\x02" + b"K\x01" + b"\x85" * 500_000 + b".", zipfile.ZIP_STORED),
        (b"\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R.", zipfile.ZIP_STORED),
    ],
    ids=["packed", "steps", "doubled", "deep", "length"],
)
def test_a_pickle_without_end_is_refused_quickly(tmp_path: Path, pickle: bytes, compression: int) -> None:
    start = time.monotonic()
    with pytest.raises(
        DeployError, match=r"unpacks to more than a checkpoint can hold|not a checkpoint of plain tensors"
    ):
        weights_file.read(archive(tmp_path / "w.pth", pickle, compression))
    assert time.monotonic() - start < 10


def test_the_counting_follows_every_step_that_torch_writes() -> None:
    buffer = io.BytesIO()
    torch.save({"state_dict": state(), **EXTRAS}, buffer)
    with zipfile.ZipFile(buffer) as content:
        name = next(name for name in content.namelist() if name.endswith("data.pkl"))
        classes = pickles._scan(io.BytesIO(content.read(name)), 1, Path("w"), weights_file.wrong)
    assert {"argparse.Namespace", "torch._utils._rebuild_tensor_v2", "collections.OrderedDict"} <= classes
