"""Weights files: whose names they use, what fits, and what a user is told when it does not."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from inception_deploy import models
from inception_deploy.errors import DeployError
from inception_deploy.models import checkpoint, trained, weights_file
from inception_deploy.models.assemble import assemble
from inception_deploy.models.base import Network
from inception_deploy.models.keys import KeyMap

SMALL: dict[str, Any] = {"width": 0.125, "num_classes": 7}
FOREIGN = [(name, keys) for name in models.names() for keys in checkpoint.key_maps(name)[1:]]


def small(name: str, **options: Any) -> Network:
    return assemble(models.spec(name), options=options, **SMALL).eval()


def values(module: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """A state dict of the module's shapes with other numbers."""
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.rand(value.shape, generator=generator) if value.is_floating_point() else value.clone()
        for key, value in module.state_dict().items()
    }


def as_theirs(tensors: dict[str, Tensor], keys: KeyMap) -> dict[str, Tensor]:
    return {keys.theirs(own): value for own, value in tensors.items()}


def filled_with(module: nn.Module, tensors: dict[str, Tensor]) -> bool:
    return all(
        torch.equal(value, tensors[key])
        for key, value in module.state_dict().items()
        if not key.endswith("num_batches_tracked")
    )


def test_every_network_another_library_has_is_read_from_it() -> None:
    assert {(name, keys.library) for name, keys in FOREIGN} == {
        *(
            (name, "torchvision")
            for name in models.names()
            if "torchvision" in models.spec(name).weights_source and name != "resnext101_32x4d"
        ),
        *(
            (name, "timm")
            for name in (
                "vgg11",
                "vgg13",
                "vgg16",
                "vgg19",
                "inception_v4",
                "inception_resnet_v2",
                "xception",
                "mobilenet_v1",
            )
        ),
        ("resnext101_32x4d", "torchvision"),  # timm's names for this family are torchvision's
    }


# Names as the libraries' own files have them, from the first layer to the last and through every kind of block.
SAMPLES = {
    (
        "alexnet",
        "torchvision",
    ): "features.0.weight features.3.bias features.10.weight classifier.1.weight classifier.4.bias classifier.6.bias",
    (
        "vgg16",
        "torchvision",
    ): "features.0.weight features.2.bias features.28.weight classifier.0.weight classifier.3.weight classifier.6.bias",
    ("vgg16", "timm"): "features.0.weight features.28.bias pre_logits.fc1.weight pre_logits.fc2.bias head.fc.weight",
    (
        "resnet50",
        "torchvision",
    ): "conv1.weight bn1.running_var layer1.0.conv1.weight layer1.0.bn3.weight layer1.0.downsample.0.weight "
    "layer1.0.downsample.1.bias layer4.2.conv3.weight fc.weight",
    (
        "googlenet",
        "torchvision",
    ): "conv1.conv.weight conv2.bn.bias conv3.conv.weight inception3a.branch1.conv.weight inception3a.branch2.1.bn.bias "
    "inception4a.branch3.0.conv.weight inception5b.branch4.1.conv.weight fc.bias",
    (
        "inception_v3",
        "torchvision",
    ): "Conv2d_1a_3x3.conv.weight Conv2d_3b_1x1.bn.weight Mixed_5b.branch1x1.conv.weight Mixed_5b.branch5x5_2.bn.bias "
    "Mixed_5d.branch3x3dbl_3.conv.weight Mixed_6a.branch3x3.conv.weight Mixed_6a.branch3x3dbl_3.conv.weight Mixed_6b.branch7x7_3.conv.weight "
    "Mixed_6e.branch7x7dbl_5.conv.weight Mixed_6e.branch_pool.conv.weight Mixed_7a.branch3x3_2.conv.weight Mixed_7a.branch7x7x3_4.bn.weight "
    "Mixed_7b.branch3x3_2a.conv.weight Mixed_7c.branch3x3dbl_3b.conv.weight fc.weight",
    (
        "inception_v4",
        "timm",
    ): "features.0.conv.weight features.3.conv.conv.weight features.4.branch1.3.bn.bias features.5.conv.bn.weight "
    "features.6.branch0.conv.weight features.9.branch3.1.conv.weight features.10.branch0.conv.weight features.11.branch2.4.conv.weight "
    "features.18.branch0.1.conv.weight features.19.branch1_0.conv.weight features.21.branch2_3b.conv.weight last_linear.bias",
    (
        "inception_resnet_v2",
        "timm",
    ): "conv2d_1a.conv.weight conv2d_4a.bn.bias mixed_5b.branch0.conv.weight mixed_5b.branch3.1.conv.weight "
    "repeat.9.branch2.2.conv.weight repeat.0.branch0.bn.weight repeat.0.conv2d.bias mixed_6a.branch0.conv.weight repeat_1.19.branch1.2.conv.weight "
    "mixed_7a.branch0.1.conv.weight repeat_2.8.conv2d.weight block8.branch0.conv.weight block8.conv2d.weight conv2d_7b.conv.weight classif.weight",
    (
        "xception",
        "timm",
    ): "conv1.weight bn2.bias block1.rep.0.conv1.weight block1.rep.1.weight block1.rep.3.pointwise.weight block2.rep.1.conv1.weight "
    "block2.rep.5.running_mean block4.rep.7.pointwise.weight block4.rep.8.bias block12.skip.weight block12.skipbn.weight conv3.conv1.weight "
    "conv4.pointwise.weight bn4.weight fc.bias",
    (
        "mobilenet_v1",
        "timm",
    ): "conv_stem.weight bn1.weight blocks.0.0.conv_dw.weight blocks.1.1.bn1.bias blocks.3.5.conv_pw.weight blocks.4.1.bn2.bias "
    "classifier.weight",
}


@pytest.mark.parametrize(("name", "library"), SAMPLES)
def test_names_are_the_librarys_own(name: str, library: str) -> None:
    with torch.device("meta"):
        own = assemble(models.spec(name)).state_dict()
    (keys,) = (known for known in checkpoint.key_maps(name) if known.library == library)
    assert set(SAMPLES[name, library].split()) <= {keys.theirs(key) for key in own}


@pytest.mark.parametrize(("name", "keys"), FOREIGN, ids=[f"{name}-{keys.library}" for name, keys in FOREIGN])
def test_a_librarys_file_fills_the_network(name: str, keys: KeyMap) -> None:
    options = {"aux": True} if any(option.name == "aux" for option in models.spec(name).options) else {}
    module = small(name, **options)
    tensors = values(module)
    theirs = as_theirs(tensors, keys)
    assert len(theirs) == len(tensors), "two of our parameters have the same name there"
    assert checkpoint.fit(module, theirs, name).library == keys.library
    assert filled_with(module, tensors)
    without = small(name)
    assert checkpoint.fit(without, theirs, name).library == keys.library
    assert filled_with(without, {key: value for key, value in tensors.items() if not key.startswith("aux.")})


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
@pytest.mark.parametrize("name", ["irv2", "vgg11", "lenet5"])
def test_our_own_files(tmp_path: Path, name: str, suffix: str) -> None:
    module = small(name)
    tensors = values(module)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    assert checkpoint.load(module, path, models.resolve(name)).library == "this project"
    assert filled_with(module, tensors)


def test_build_loads_and_says_so(tmp_path: Path) -> None:
    tensors = values(small("irv2"))
    save_file(tensors, tmp_path / "irv2.safetensors")
    module = models.build("irv2", weights=tmp_path / "irv2.safetensors", **SMALL)
    assert module.trained is True
    assert not module.training
    assert filled_with(module, tensors)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tensors: {"state_dict": tensors, "epoch": 3},
        lambda tensors: {"model": tensors},
        lambda tensors: {f"module.{key}": value for key, value in tensors.items()},
        lambda tensors: {"state_dict": {f"module.{key}": value for key, value in tensors.items()}},
    ],
    ids=["state_dict", "model", "ddp", "both"],
)
def test_checkpoints_as_training_scripts_write_them(
    tmp_path: Path, wrap: Callable[[dict[str, Tensor]], object]
) -> None:
    module = small("resnet18")
    tensors = values(module)
    torch.save(wrap(tensors), tmp_path / "c.pth")
    checkpoint.load(module, tmp_path / "c.pth", "resnet18")
    assert filled_with(module, tensors)


def test_half_precision_becomes_single() -> None:
    module = small("resnet18")
    checkpoint.fit(module, {key: value.half() for key, value in values(module).items()}, "resnet18")
    assert {value.dtype for key, value in module.state_dict().items() if "num_batches" not in key} == {torch.float32}


def test_timm_writes_vggs_hidden_layers_as_convolutions() -> None:
    module = assemble(models.spec("vgg11"), width=0.125, num_classes=7, input_size=224)
    (keys,) = (known for known in checkpoint.key_maps("vgg11") if known.library == "timm")
    tensors = values(module)
    theirs = as_theirs(tensors, keys)
    theirs["pre_logits.fc1.weight"] = theirs["pre_logits.fc1.weight"].reshape(512, 64, 7, 7)
    theirs["pre_logits.fc2.weight"] = theirs["pre_logits.fc2.weight"].reshape(512, 512, 1, 1)
    assert checkpoint.fit(module, theirs, "vgg11").library == "timm"
    assert filled_with(module, tensors)


def test_what_does_not_fit_is_listed() -> None:
    module = small("resnet18")
    tensors = values(module)
    del tensors["stem.0.conv.weight"]
    tensors["classifier.bias"] = torch.zeros(1000)
    tensors["surplus"] = torch.zeros(1)
    with pytest.raises(DeployError) as caught:
        checkpoint.fit(module, tensors, "resnet18", source="w.pth")
    assert caught.value.kind == "weights"
    assert caught.value.message == (
        "w.pth does not fit resnet18 (its names read as those of this project): 1 missing: stem.0.conv.weight; 1 unexpected: surplus; "
        "1 of the wrong shape: classifier.bias (file 1000, network 7)"
    )
    assert caught.value.got == {
        "missing": ["stem.0.conv.weight"],
        "unexpected": ["surplus"],
        "of_the_wrong_shape": ["classifier.bias (file 1000, network 7)"],
    }


def test_a_refused_file_changes_nothing() -> None:
    module = small("resnet18")
    before = {key: value.clone() for key, value in module.state_dict().items()}
    tensors = values(module) | {"surplus": torch.zeros(1)}
    with pytest.raises(DeployError):
        checkpoint.fit(module, tensors, "resnet18")
    assert filled_with(module, before)


def test_long_lists_are_cut_with_their_count() -> None:
    module = small("inception_v4")
    with pytest.raises(DeployError, match=r"447 missing: .* and 435 more; 1 unexpected: x"):
        checkpoint.fit(
            module, {"x": torch.zeros(1)} | dict(list(values(module).items())[:0]) | _two_of(module), "inception_v4"
        )


def _two_of(module: nn.Module) -> dict[str, Tensor]:
    every = {key: value for key, value in values(module).items() if not key.endswith("num_batches_tracked")}
    return {key: every[key] for key in list(every)[: len(every) - 447]}


def test_another_networks_weights_are_refused() -> None:
    with pytest.raises(DeployError, match="does not fit plain18"):
        checkpoint.fit(
            small("plain18"), as_theirs(values(small("resnet18")), checkpoint.key_maps("resnet18")[1]), "plain18"
        )


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(poison: float) -> None:
    module = small("resnet18")
    tensors = values(module)
    tensors["classifier.weight"][0, 0] = poison
    with pytest.raises(DeployError, match=r"holds infinities or NaN: classifier\.weight"):
        checkpoint.fit(module, tensors, "resnet18")


def test_integers_are_no_weights() -> None:
    module = small("resnet18")
    tensors = values(module) | {"classifier.bias": torch.zeros(7, dtype=torch.int8)}
    with pytest.raises(DeployError, match=r"classifier\.bias \(file 7 int8, network 7\)"):
        checkpoint.fit(module, tensors, "resnet18")


class Hostile:
    """Unpickling this would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("hostile-was-run"),))


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.pth", b"", "is no weights file that is known here: it begins with nothing"),
        ("w.pth", b"no pickle at all", "is no weights file that is known here: it begins with b'no pickl'"),
        ("w.pth", pickle.dumps({"a": 1}), "is not a checkpoint of plain tensors"),
        ("w.pth", b"version https://git-lfs.github.com/spec/v1", "is no weights file but a Git LFS pointer"),
        ("w.pth", b"\x89HDF\r\n", "is no weights file but an HDF5 file"),
        ("w.pth", saved({"a": 1}), "holds no state dict: not a tensor: a"),
        ("w.pth", saved([1, 2]), "holds no state dict but a list"),
        (
            "w.pth",
            saved(Hostile()),
            "is not a checkpoint of plain tensors .*: Unsupported global: GLOBAL getattr$",
        ),
        ("w.pt", saved({}), "holds no state dict but a dict"),
        ("w.safetensors", b"", "cannot be read as safetensors"),
        ("w.safetensors", b"\xff" * 64, "cannot be read as safetensors"),
        ("w.onnx", b"x", "is no weights file that is known here"),
    ],
)
def test_files_that_are_no_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DeployError, match=message) as caught:
        weights_file.read(tmp_path / name)
    assert caught.value.kind == "weights"
    assert caught.value.exit_code == 1
    assert "weights_only" not in caught.value.message, "torch's advice to load it unsafely must not reach the user"
    assert not (tmp_path / "hostile-was-run").exists()


def test_a_pickled_module_is_no_state_dict(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "w.pth")
    with pytest.raises(DeployError, match=r"holds a whole pickled module \(with torch\.nn\.modules\.linear\.Linear\)"):
        weights_file.read(tmp_path / "w.pth")


def test_a_truncated_file(tmp_path: Path) -> None:
    for name, write in (("w.pth", torch.save), ("w.safetensors", save_file)):
        path = tmp_path / name
        write(values(small("resnet18")), path)
        path.write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(DeployError, match=str(path)):
            weights_file.read(path)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="does not exist"):
        weights_file.read(tmp_path / "w.pth")
    (tmp_path / "w.pt").mkdir()
    with pytest.raises(DeployError, match="is not a file"):
        weights_file.read(tmp_path / "w.pt")


class TestTrained:
    def info(self, module: Network) -> trained.TrainedInfo:
        return trained.TrainedInfo(
            name=module.spec.name,
            classes=("cat", "dog"),
            input=module.input_shape,
            preprocessing=module.preprocessing,
            width=0.125,
            options={"blocks": (1, 1, 1)},
            accuracy=0.5,
            data="nothing",
        )

    def test_a_saved_network_rebuilds_itself(self, tmp_path: Path) -> None:
        module = models.build("irv2", width=0.125, num_classes=2, input_size=80, in_channels=1, blocks=(1, 1, 1))
        trained.save(tmp_path / "a.safetensors", module, self.info(module))
        again, info = models.load_trained(tmp_path / "a.safetensors")
        assert info.classes == ("cat", "dog")
        assert again.trained
        assert not again.training
        assert again.input_shape == (1, 80, 80)
        assert again.preprocessing == module.preprocessing
        x = torch.zeros(1, 1, 80, 80)
        assert torch.equal(again(x), module(x))

    def test_the_same_network_gives_the_same_bytes(self, tmp_path: Path) -> None:
        module = small("irv2", blocks=(1, 1, 1))
        for name in "ab":
            trained.save(tmp_path / name, module, self.info(module))
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()

    def test_auxiliary_heads_are_left_behind(self, tmp_path: Path) -> None:
        module = small("inception_v3", aux=True)
        trained.save(tmp_path / "v3.safetensors", module, self.info(module))
        assert not any(key.startswith("aux.") for key in weights_file.read(tmp_path / "v3.safetensors").tensors)

    @pytest.mark.parametrize(
        ("metadata", "message"),
        [
            (None, "does not say which network it is"),
            ({"inception_deploy": "{"}, "cannot be understood"),
            ({"inception_deploy": '{"schema": 2}'}, "its schema is not 1"),
            ({"inception_deploy": "[]"}, "cannot be understood"),
            ({"inception_deploy": '{"schema": 1}'}, "cannot be understood: field 'name' is missing"),
        ],
    )
    def test_files_that_do_not_say_what_they_are(
        self, tmp_path: Path, metadata: dict[str, str] | None, message: str
    ) -> None:
        save_file({"x": torch.zeros(1)}, tmp_path / "w.safetensors", metadata=metadata)
        with pytest.raises(DeployError, match=message):
            models.load_trained(tmp_path / "w.safetensors")

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(DeployError, match="cannot be read as safetensors"):
            models.load_trained(tmp_path / "absent.safetensors")
