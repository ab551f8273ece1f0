"""Triton's configurations: the published schema reads them, and they say what the network is."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from inception_deploy.errors import DeployError
from inception_deploy.serving import triton
from inception_deploy.serving.pbtxt import Word, text

from ..conftest import tiny_manifest
from .model_config import ENUMS, MESSAGES, ModelConfig


def published() -> Any:
    """The compiled schema that tritonclient ships; its package is not imported, which would need gRPC."""
    try:
        found = importlib.metadata.distribution("tritonclient").locate_file("tritonclient/grpc/model_config_pb2.py")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("tritonclient, which ships the compiled schema, is not installed: pip install tritonclient")
    spec = importlib.util.spec_from_file_location("model_config_pb2", str(found))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def manifest(**changes: Any) -> dict[str, Any]:
    return {**tiny_manifest(), **changes}


def port(name: str, *shape: int, dtype: str = "float32") -> dict[str, Any]:
    return {"name": name, "shape": list(shape), "dtype": dtype}


ONE = {"inputs": [port("x", 1, 3, 8, 8)], "outputs": [port("y", 1, 7)]}
SEVERAL = {"inputs": [port("x", 2, 3, 8, 8), port("mask", 2, 8, dtype="uint8")], "outputs": [port("y", 2, 7)]}
SCALAR = {"inputs": [port("x", 1, 3, 8, 8)], "outputs": [port("y", 1, 7), port("total", dtype="int64")]}
PLANS = {**ONE, "plans": [{"inputs": [port("x", rows, 3, 8, 8)], "outputs": [port("y", rows, 7)]} for rows in (8, 24)]}
GPU = {"target": "cuda:sm_90", "target_details": {"kind": "cuda", "variant": "sm_90"}}
MANIFESTS = {"batch": manifest(), "one": manifest(**ONE), "several": manifest(**SEVERAL), "scalar": manifest(**SCALAR), "plans": manifest(**PLANS),
             "gpu": manifest(**GPU)}  # fmt: skip


def texts(of: dict[str, Any]) -> list[str]:
    return [
        text(triton.configuration(of, labels=True)),
        *(text(triton.onnx_configuration(of, labels=True, free=free)) for free in (False, True)),
    ]


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_published_schema_reads_every_configuration(name: str) -> None:
    schema = published()
    for said in texts(MANIFESTS[name]):
        config = text_format.Parse(said, schema.ModelConfig())
        assert config.backend in ("python", "onnxruntime")


def test_the_schema_of_these_tests_is_the_published_one() -> None:
    schema = published()
    theirs = {
        "Kind": schema.ModelInstanceGroup.Kind.DESCRIPTOR,
        "Input": schema.ModelWarmup.Input.DESCRIPTOR,
        "InputsEntry": schema.ModelWarmup.InputsEntry.DESCRIPTOR,
        "ParametersEntry": schema.ModelConfig.ParametersEntry.DESCRIPTOR,
        "DataType": schema.DataType.DESCRIPTOR,
    }
    for name, values in ENUMS.items():
        assert [value.name for value in theirs[name].values] == values
    ours = ModelConfig.DESCRIPTOR.file.message_types_by_name
    for name in MESSAGES:
        known = theirs.get(name) or getattr(schema, name).DESCRIPTOR
        for field in ours[name].fields:
            other = known.fields_by_name[field.name]
            assert (other.number, other.type, other.is_repeated) == (field.number, field.type, field.is_repeated)


def read(of: dict[str, Any]) -> Any:
    return text_format.Parse(texts(of)[0], ModelConfig())


def test_a_batch_is_gathered_and_its_axis_is_the_servers() -> None:
    config = read(MANIFESTS["batch"])
    assert config.backend == "python"
    assert config.max_batch_size == 64
    assert list(config.dynamic_batching.preferred_batch_size) == [2]
    assert (config.input[0].name, list(config.input[0].dims)) == ("input", [3, 8, 8])
    assert (config.output[0].label_filename, list(config.output[0].dims)) == ("labels.txt", [7])
    (warm,) = config.model_warmup
    assert (warm.batch_size, list(warm.inputs[0].value.dims)) == (2, [3, 8, 8])


@pytest.mark.parametrize("batch", [1, 3, 48, 64, 65, 1000])
def test_the_most_rows_are_whole_batches(batch: int) -> None:
    of = manifest(inputs=[port("x", batch, 3)], outputs=[port("y", batch, 7)])
    most = read(of).max_batch_size
    assert most % batch == 0
    assert most >= batch


def test_one_row_at_a_time_is_not_gathered() -> None:
    config = read(MANIFESTS["one"])
    assert config.max_batch_size == 64
    assert not config.HasField("dynamic_batching")


def test_every_plan_is_a_batch_to_gather() -> None:
    config = read(MANIFESTS["plans"])
    assert list(config.dynamic_batching.preferred_batch_size) == [8, 24]
    assert config.max_batch_size == 48
    assert list(config.input[0].dims) == [3, 8, 8]


@pytest.mark.parametrize("name", ["several", "scalar"])
def test_where_rows_cannot_be_gathered_the_shapes_are_the_networks(name: str) -> None:
    config = read(MANIFESTS[name])
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    shapes = [list(one.dims) for one in (*config.input, *config.output)]
    assert shapes == [one["shape"] or [1] for side in ("inputs", "outputs") for one in MANIFESTS[name][side]]
    assert config.model_warmup[0].batch_size == 1


def test_instances_are_on_the_device_of_the_bundle() -> None:
    kinds = {name: [group.kind for group in read(of).instance_group] for name, of in MANIFESTS.items()}
    assert kinds == {name: [ENUMS["Kind"].index("KIND_GPU" if name == "gpu" else "KIND_CPU")] for name in MANIFESTS}


def test_a_type_that_triton_does_not_have_is_refused() -> None:
    of = manifest(outputs=[port("y", 2, 7, dtype="bfloat16")])
    with pytest.raises(DeployError, match="y is bfloat16, which Triton has no type for"):
        triton.configuration(of, labels=False)


@pytest.mark.parametrize(
    ("model", "folder"),
    [
        ("irv2", "irv2"),
        ("/home/me/net.py:build", "net.py-build"),
        ("a/b c.onnx", "b-c.onnx"),
        ("...", "model"),
        ("netz ü", "netz"),
    ],
)
def test_folders_are_names_of_models(model: str, folder: str) -> None:
    assert triton.place(model) == str(Path(folder) / "1" / "bundle")


@given(
    st.text(),
    st.integers(-(2**31), 2**31 - 1),
    st.booleans(),
    st.sampled_from(ENUMS["DataType"]),
    st.lists(st.integers(0, 99)),
)
def test_any_message_is_read_back(name: str, count: int, zero: bool, kind: str, sizes: list[int]) -> None:
    message = (
        ("name", name, "a comment\nof two lines"),
        ("max_batch_size", count),
        ("input", [(("name", name), ("data_type", Word(kind)), ("dims", sizes)), (("name", "other"),)]),
        ("model_warmup", (("inputs", [(("key", name), ("value", (("zero_data", zero),)))]),)),
    )
    config = text_format.Parse(text(message), ModelConfig())
    assert (config.name, config.max_batch_size, [one.name for one in config.input]) == (name, count, [name, "other"])
    assert (config.input[0].data_type, list(config.input[0].dims)) == (ENUMS["DataType"].index(kind), sizes)
    assert config.model_warmup[0].inputs[0].value.zero_data == zero
