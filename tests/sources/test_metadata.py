"""What an ONNX says of itself: written, read again, written by others, and wrong."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from inception_deploy import __version__
from inception_deploy.errors import DeployError
from inception_deploy.runtime.labels import imagenet
from inception_deploy.sources import metadata, resolve


def model(classes: int = 3) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("GlobalAveragePool", ["x"], ["p"]), helper.make_node("Flatten", ["p"], ["y"])],
        "torch_jit",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, classes, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, classes))],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="pytorch", producer_version="2"
    )


def props(made: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in made.metadata_props}


def test_producer_version_name_and_labels() -> None:
    made = model()
    made.metadata_props.add(key="author", value="somebody")
    for _ in range(2):
        metadata.write(made, "net", None, ["ant", "bée", "cow"])
    assert (made.producer_name, made.producer_version, made.graph.name) == ("inception-deploy", __version__, "net")
    assert props(made) == {
        "author": "somebody", "inception_deploy.model": "net", "inception_deploy.labels": '["ant", "bée", "cow"]',
    }  # fmt: skip
    assert metadata.labels(made, "net") == ("ant", "bée", "cow")
    onnx.checker.check_model(made)


def test_labels_are_written_where_they_are_the_networks() -> None:
    made = model(1000)
    metadata.write(made, "net", None, None)
    assert metadata.labels(made, "net") == imagenet()
    few = model()
    metadata.write(few, "net", None, ["only one"])
    metadata.write(few, "net", None, None)
    assert metadata.labels(few, "net") is None


def test_a_file_that_comes_back_keeps_its_labels(tmp_path: Path) -> None:
    made = model()
    metadata.write(made, "net", None, ["a", "b", "c"])
    onnx.save(made, tmp_path / "net.onnx")
    assert resolve.resolve(resolve.Request(str(tmp_path / "net.onnx"))).labels == ("a", "b", "c")


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("{0: 'person', 1: 'bicycle', 2: \"traffic light\"}", ("person", "bicycle", "traffic light")),
        ("{0: 'person', 2: 'bicycle'}", None),
        ("['a', 'b']", None),
        ("{", None),
        ("", None),
        ("__import__('os').getcwd()", None),
        ("(" * 5000, None),
    ],
)
def test_labels_as_ultralytics_writes_them(text: str, labels: tuple[str, ...] | None) -> None:
    made = model()
    made.metadata_props.add(key="names", value=text)
    assert metadata.labels(made, "net") == labels


@pytest.mark.parametrize("text", ["{", "[]", '{"mean": 3}', '{"crop": [1, 2], "mean": ["a"]}'])
def test_a_preprocessing_that_is_something_else_is_refused(text: str) -> None:
    made = model()
    made.metadata_props.add(key=metadata.PREPROCESSING, value=text)
    with pytest.raises(DeployError, match=r"net: metadata 'inception_deploy\.preprocessing'"):
        metadata.preprocessing(made, "net")


@pytest.mark.parametrize("value", [{}, [1, 2], "abc", None])
def test_labels_that_are_something_else_are_refused(value: object) -> None:
    made = model()
    made.metadata_props.add(key=metadata.LABELS, value=json.dumps(value))
    with pytest.raises(DeployError, match=r"net: metadata 'inception_deploy\.labels' is no list of names"):
        metadata.labels(made, "net")
