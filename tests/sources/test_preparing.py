"""What a user says of the preprocessing goes over what the network says, and what does not fit is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from inception_deploy.errors import DeployError, UsageError
from inception_deploy.runtime.preprocessing import Preprocessing, as_dict, from_dict
from inception_deploy.sources import hub, metadata, resolve
from inception_deploy.sources.preparing import USUAL, of_timm, said, settled
from inception_deploy.verify import bound

SHAPE = (1, 3, 64, 48)


def how(
    given: dict[str, Any] | None = None, own: Preprocessing | None = None, shape: Any = SHAPE, **more: Any
) -> Preprocessing:
    found, _ = settled(own, said(given or {}), shape, "net", **more)
    assert found is not None
    return from_dict(found)


def test_nothing_said_means_imagenets_and_a_line_that_says_so() -> None:
    found, notes = settled(None, said(None), SHAPE, "net.onnx")
    assert from_dict(dict(found or {})) == USUAL.at(64, 48)
    assert "net.onnx: its preprocessing is not known, ImageNet's is assumed" in notes[0]
    assert settled(USUAL, said(None), (1, 3, 224, 224), "net")[1] == ()


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"scale": "1"}, {"scale": "1", "mean": (0.0,) * 3, "std": (1.0,) * 3}),
        ({"scale": "1/127.5", "mean": "1", "std": "1"}, {"scale": "1/127.5", "mean": (1.0,) * 3}),
        ({"mean": "0.5,0.4,0.3"}, {"mean": (0.5, 0.4, 0.3), "std": (1.0,) * 3, "scale": "1/255"}),
        ({"mean": (0.5, 0.4, 0.3), "std": [0.1, 0.2, 0.3]}, {"std": (0.1, 0.2, 0.3)}),
        ({"color": "bgr"}, {"color": "bgr", "mean": USUAL.mean}),
        ({"resize": "80", "interpolation": "lanczos", "crop": "64x48"}, {"resize": 80, "interpolation": "lanczos"}),
    ],
)
def test_what_is_said_of_a_network_that_does_not_say(given: dict[str, Any], wanted: dict[str, Any]) -> None:
    found = how(given)
    assert {name: getattr(found, name) for name in wanted} == wanted
    assert found.crop == (64, 48)


def test_what_is_said_goes_over_the_networks_own_and_leaves_the_rest() -> None:
    own = Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 70, (64, 48), "bicubic")
    assert how({"std": "1"}, own) == Preprocessing((0.1, 0.2, 0.3), (1.0, 1.0, 1.0), 70, (64, 48), "bicubic")
    assert how({}, own, (1, 3, 128, 96)) == own.at(128, 96)


def test_layouts_and_channels() -> None:
    assert how(shape=(1, 64, 48, 3)).layout == "nhwc"
    assert how({"layout": "nhwc"}, shape=(1, 3, 48, 3)).crop == (3, 48)
    assert how(shape=(1, 1, 28, 28)).color == "gray"
    assert how(shape=(1, 28, 28, 1), own=None).layout == "nhwc"
    assert settled(None, said(None), (1, 4, 8, 8), "net") == (None, ())
    assert settled(None, said(None), (1, 100), "net") == (None, ())


def test_a_uint8_input_takes_the_pixels_as_they_are() -> None:
    found = how(shape=(1, 64, 48, 3), dtype="uint8")
    assert (found.dtype, found.scale, found.mean, found.layout) == ("uint8", "1", (0.0,) * 3, "nhwc")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mean": "a,b,c"}, "--mean is 'a,b,c'"),
        ({"mean": "0.1,0.2"}, "net: preprocessing: mean is [0.1, 0.2], not 3 finite numbers"),
        ({"std": "0"}, "std is [0.0, 0.0, 0.0], not above 0"),
        ({"scale": "1/0"}, "--scale is '1/0'"),
        ({"scale": "1e99999999"}, "--scale is"),
        ({"color": "gray"}, "net: preprocessing: mean is"),
        ({"color": "yuv"}, "color is 'yuv', not one of rgb, bgr, gray"),
        ({"resize": "-3"}, "--resize is '-3'"),
        ({"resize": "16"}, "resize is 16, less than the crop of 64x48"),
        ({"crop": "32"}, "--crop is 32x32, but the network's input is 64x48"),
        ({"layout": "nhwc"}, "--layout speaks of pictures"),
        ({"interpolation": "area"}, "interpolation is 'area', not one of nearest, bilinear, bicubic, lanczos"),
        ({"means": "1"}, "--means is no key of a preprocessing"),
    ],
)
def test_what_cannot_be_is_refused_by_name(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        how(given)
    assert message in caught.value.message
    assert caught.value.kind == "preprocessing"


def test_a_file_holds_the_same_keys_and_options_go_over_it(tmp_path: Path) -> None:
    file = tmp_path / "how.json"
    file.write_text(json.dumps({"mean": [0.5, 0.5, 0.5], "std": 0.25, "scale": "1/255", "resize": 80}))
    found = how({"file": file, "resize": "90"})
    assert (found.mean, found.std, found.resize) == ((0.5,) * 3, (0.25,) * 3, 90)
    file.write_text(json.dumps(as_dict(USUAL.at(64, 48))))  # what a manifest holds
    assert from_dict(dict(settled(None, said(file), SHAPE, "net")[0] or {})) == USUAL.at(64, 48)


@pytest.mark.parametrize(
    ("text", "message"), [("{", "cannot be read"), ("[1]", "is no JSON object"), (None, "does not exist")]
)
def test_a_file_that_cannot_be_read(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "how.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(DeployError, match=message) as caught:
        said(file)
    assert str(file) in caught.value.message


def test_a_key_of_a_file_that_is_not_known_is_named(tmp_path: Path) -> None:
    file = tmp_path / "how.json"
    file.write_text(json.dumps({"normalise": True}))
    with pytest.raises(UsageError, match="'normalise' is no key"):
        said(file)


def model(size: int = 16) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, size, size))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 3, size, size))],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_an_onnx_carries_it_so_that_exporting_again_keeps_it(tmp_path: Path) -> None:
    made, path = model(), tmp_path / "net.onnx"
    own = Preprocessing((1.0, 2.0, 3.0), (1.0, 1.0, 2.0), 20, (16, 16), "bicubic", "1", "bgr")
    metadata.write(made, "net", as_dict(own), None)
    assert metadata.preprocessing(made, "net") == own
    onnx.save(made, path)
    source = resolve.resolve(resolve.Request(str(path)))
    assert from_dict(dict(source.preprocessing or {})) == own
    assert not [note for note in source.notes if "ImageNet" in note]
    changed = resolve.resolve(resolve.Request(str(path), preprocessing=said({"color": "rgb"})))
    assert dict(changed.preprocessing or {})["color"] == "rgb"
    metadata.write(made, "net", None, None)
    assert metadata.preprocessing(made, "net") is None


TIMM = {
    "input_size": [3, 299, 299],
    "interpolation": "bicubic",
    "crop_pct": 0.8975,
    "crop_mode": "center",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
}


def test_timms_description() -> None:
    assert of_timm(TIMM, "c") == Preprocessing((0.5,) * 3, (0.5,) * 3, 333, (299, 299), "bicubic")
    with pytest.raises(DeployError, match="c: its preprocessing cannot be read: 'mean' is missing"):
        of_timm({"input_size": [3, 2, 2], "std": [1]}, "c")
    with pytest.raises(DeployError, match="crop_mode is 'squash'"):
        of_timm({**TIMM, "crop_mode": "squash"}, "c")


def folder(path: Path, config: object, name: str | None = "model.safetensors") -> Path:
    path.mkdir(exist_ok=True)
    (path / hub.CONFIG).write_text(config if isinstance(config, str) else json.dumps(config))
    if name is not None:
        (path / name).touch()
    return path


@pytest.mark.parametrize("nested", [True, False])
def test_a_folder_of_the_hub(tmp_path: Path, nested: bool) -> None:
    rest = {"pretrained_cfg": TIMM} if nested else TIMM
    path = folder(
        tmp_path / "net", {"architecture": "inception_resnet_v2", "num_classes": 2, "label_names": ["a", "b"], **rest}
    )
    found = hub.read(path)
    assert (found.name, found.classes, found.labels) == ("inception_resnet_v2", 2, ("a", "b"))
    assert (found.weights, found.preprocessing.resize) == (path / "model.safetensors", 333)


@pytest.mark.parametrize(
    ("config", "file", "message"),
    [
        ("{", "model.safetensors", "cannot be read"),
        ([], "model.safetensors", "is no JSON object"),
        ({"architecture": "vit_tiny"}, "model.safetensors", "'vit_tiny', which the zoo does not have"),
        ({"architecture": "resnet50"}, None, "holds no weights"),
        ({"architecture": "resnet50"}, "model.safetensors", "'input_size' is missing"),
    ],
)
def test_a_folder_that_cannot_be_used(tmp_path: Path, config: object, file: str | None, message: str) -> None:
    with pytest.raises(DeployError, match=message):
        hub.read(folder(tmp_path / "net", config, file))


@pytest.mark.parametrize("as_model", [True, False])
def test_a_folder_is_a_model_or_its_weights(tmp_path: Path, as_model: bool) -> None:
    import torch
    from safetensors.torch import save_file

    import inception_deploy.models as models

    module = models.build("mobilenet_v1", num_classes=3, input_size=64, seed=1)
    path = folder(
        tmp_path / "net",
        {"architecture": "mobilenetv1_100", "num_classes": 3, "pretrained_cfg": {**TIMM, "input_size": [3, 64, 64]}},
    )
    save_file(module.state_dict(), path / "model.safetensors")
    named = {"model": str(path)} if as_model else {"model": "mobilenet_v1", "weights": path}
    source = resolve.resolve(resolve.Request(**named, input_size=(64, 64)))
    assert source.name == "mobilenet_v1"
    assert dict(source.preprocessing or {})["interpolation"] == "bicubic"
    x = torch.randn(1, 3, 64, 64)
    assert source.reference(x.numpy())[0] == pytest.approx(module(x).detach().numpy(), abs=bound("kernels"))
    with pytest.raises(DeployError, match="holds mobilenet_v1, not resnet50"):
        resolve.resolve(resolve.Request("resnet50", weights=path))
