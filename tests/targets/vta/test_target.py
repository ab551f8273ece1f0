"""The target `vta`: what it takes, what it refuses, and networks compiled for it, run on the simulator, to the bit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import inception_deploy as idp
from inception_deploy import models, targets
from inception_deploy.cli import main
from inception_deploy.errors import DeployError, UsageError
from inception_deploy.graph.driver import optimise
from inception_deploy.kernels.vta.accelerator import Accelerator
from inception_deploy.kernels.vta.boards import BOARDS
from inception_deploy.kernels.vta.config import Config
from inception_deploy.lower.lower import lower
from inception_deploy.lower.plan import Refusal
from inception_deploy.quantize import integer_network, quantize
from inception_deploy.quantize.scheme import Choices
from inception_deploy.runtime.compiled import load
from inception_deploy.sources import capture
from inception_deploy.targets.vta_target import VtaTarget

from ...lower import test_integers as networks
from ...lower import test_vta_siblings as siblings
from ...lower.conftest import Builder
from ...lower.test_zoo_lower import BLOCKS
from .whole import Simulated


def simulated(board: str) -> VtaTarget:
    """That board's VTA, simulated by this machine."""
    target = targets.parse("vta:sim").at("int8")
    assert isinstance(target, VtaTarget)
    row = BOARDS[board]
    return replace(target, vta=Accelerator(board, target.vta.config, row))


@pytest.mark.parametrize("name", ["vta", "vta:sim", "vta:pynq", "vta:ultra96", "vta:zcu104", "vta:de10nano"])
def test_names(name):
    target = targets.parse(name)
    assert target.kind == "vta"
    assert target.name == name
    assert target.precisions == ["int8"]
    details = target.describe()
    again = targets.described(details)
    assert again.describe() == details


@pytest.mark.parametrize("name", ["vta:zcu1", "vta:sim:none", "vta:pynq:avx2", "vta:"])
def test_no_such_target(name):
    with pytest.raises(UsageError, match="there is no target"):
        targets.parse(name)


def test_it_computes_in_int8_only():
    with pytest.raises(UsageError, match="target vta:pynq does not compute in 'fp32'"):
        targets.parse("vta:pynq").at("fp32")


def test_who_does_depthwise_convolutions_is_a_part_of_the_name(tmp_path: Path):
    """Forced to either, the bundle gives the same bits, and tells both estimates."""
    model, pictures = networks.model_of(networks.depthwise)
    onnx.save(model, str(tmp_path / "net.onnx"))
    np.savez(tmp_path / "pictures.npz", inputs=pictures)
    told = {"calibration": tmp_path / "pictures.npz", "effort": "fast"}
    results = []
    for who, device in (("host", "cpu"), ("vta", "vta")):
        bundle = tmp_path / who
        idp.export(tmp_path / "net.onnx", bundle, target=f"vta:sim,depthwise={who}", **told)
        vta = idp.inspect(bundle)["vta"]
        assert {row["device"] for row in vta["compared"]} == {device}
        assert min(row[part] for row in vta["compared"] for part in ("vta", "host", "crossing")) > 0
        assert {row["op"] for row in vta["kept"]} == ({"depthwise"} if who == "host" else set())
        with load(bundle) as compiled:
            results.append(compiled.run(pictures[:2])[0])
    assert np.array_equal(*results)
    with pytest.raises(UsageError, match="'depthwise=gpu' is no option of target vta:pynq") as error:
        targets.parse("vta:pynq,depthwise=gpu")
    assert error.value.allowed == ["depthwise=faster", "depthwise=vta", "depthwise=host"]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("board", ["pynq", "de10nano"])
def test_siblings_are_one_step_and_every_bit_is_the_references(board: str, batch: int, tmp_path: Path) -> None:
    """A tile goes into a slice of a concat and into buffers beside it."""
    b = Builder()
    model, x = siblings.network(b, siblings.block(b, siblings.trunk(b, batch)))
    values = integer_network.read(model).run({model.graph.input[0].name: x})
    made = Simulated(model, values, simulated(board))
    assert not made.wrong
    assert set(made.compared) == made.stored
    assert [row.joined for row in made.plan.siblings] == [True, False]
    assert not exact(model, x, board, tmp_path)


def test_inspect_says_who_shares_its_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    b = Builder()
    model, pictures = siblings.floating(b, siblings.block(b, siblings.trunk(b, 1)))
    onnx.save(model, str(tmp_path / "net.onnx"))
    np.savez(tmp_path / "pictures.npz", inputs=pictures)
    bundle = tmp_path / "bundle"
    idp.export(tmp_path / "net.onnx", bundle, target="vta:sim", calibration=tmp_path / "pictures.npz", effort="fast")
    joined, alone = idp.inspect(bundle)["vta"]["siblings"]
    assert joined["joined"]
    assert joined["together"] < joined["apart"]
    assert not alone["joined"]
    assert main(["inspect", str(bundle)]) == 0
    said = capsys.readouterr().out
    assert f"{joined['nodes'][0]} and 2 more" in said
    assert alone["reason"] in said


def written(folder: Path, **changes: int) -> Path:
    """A configuration that differs from upstream's."""
    path = folder / "Config.json"
    path.write_text(json.dumps(Config().document() | changes))
    return path


def test_another_configuration(tmp_path: Path):
    """Small buffers of odd sizes: other tiles, the same bits."""
    path = written(tmp_path, LOG_INP_BUFF_SIZE=13, LOG_WGT_BUFF_SIZE=14, LOG_ACC_BUFF_SIZE=14, LOG_UOP_BUFF_SIZE=13)
    target = targets.parse(f"vta:sim@{path}").at("int8")
    assert isinstance(target, VtaTarget)
    assert target.vta.config.inp_depth == 512
    assert target.name == f"vta:sim@{path}"
    model, pictures = networks.model_of(networks.pools)
    quantized = quantize(model, pictures, scheme="power-of-two").model
    target.build(lower(quantized, target), tmp_path)
    with load(tmp_path) as compiled:
        (want,) = integer_network.reference(quantized, {model.graph.input[0].name: pictures[:2]})
        assert np.array_equal(compiled.run(pictures[:2])[0], want)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"LOG_BLOCK": 5}, "networks lie in blocks of 16 channels"),
        ({"LOG_BATCH": 1}, "networks lie in blocks of 16 channels"),
        ({"LOG_WGT_BUFF_SIZE": 9}, "LOG_WGT_BUFF_SIZE .* holds no tile"),
        ({"LOG_WGT_BUFF_SIZE": 40}, "LOG_WGT_BUFF_SIZE of the VTA configuration is 40"),
    ],
)
def test_a_configuration_that_networks_do_not_fit(changes, message, tmp_path: Path):
    with pytest.raises(DeployError, match=message) as error:
        targets.parse(f"vta:zcu104@{written(tmp_path, **changes)}")
    assert error.value.kind == "vta"


def test_only_a_vta_has_a_configuration(tmp_path: Path):
    with pytest.raises(UsageError, match="target cpu has no configuration"):
        targets.parse(f"cpu@{written(tmp_path)}")


def stem(b, x):
    """Patches of every kind: stride, dilation, padding of one side, few channels."""
    y = b.op("Relu", b.conv(x, 3, 20, (5, 3), strides=[2, 1], pads=[2, 0, 1, 1]))
    z = b.op("Relu", b.conv(x, 3, 20, (3, 3), strides=[2, 1], dilations=[2, 1], pads=[2, 0, 1, 1]))
    return b.conv(b.op("Add", y, z), 20, 7, (1, 1))


def test_stems(tmp_path: Path):
    model, pictures = networks.model_of(stem)
    quantized = quantize(model, pictures, scheme="power-of-two").model
    plan = lower(quantized, simulated("pynq"))
    assert [step.op for step in plan.steps if step.device == "cpu"].count("patches") == 2
    exact(quantized, pictures[:2], "pynq", tmp_path)


def test_a_scheme_of_float_scales_is_refused_at_once():
    with pytest.raises(UsageError, match="target vta:sim shifts, which the scales of 'float-scale' do not allow"):
        targets.parse("vta:sim").check_scheme("float-scale")
    targets.parse("vta:sim").check_scheme("power-of-two-tensor")


def test_it_shifts():
    model, pictures = networks.model_of(networks.plain)
    scaled = quantize(model, pictures, scheme="float-scale").model
    with pytest.raises(DeployError, match="a VTA shifts") as error:
        lower(scaled, simulated("pynq"))
    assert error.value.kind == "scheme"
    assert "power-of-two" in str(error.value.allowed)


@pytest.mark.parametrize("board", ["pynq", "de10nano"])
@pytest.mark.parametrize(
    "make",
    [
        *(
            "plain",
            "padded",
            "grouped",
            "depthwise",
            "pools",
            "branches",
            "slots",
            "twice",
            "tables",
            "islands",
            "gated",
        ),
        "reshaped",
    ],
)
def test_every_bit(make, board, tmp_path: Path):
    model, pictures = networks.model_of(getattr(networks, make))
    quantized = quantize(model, pictures, scheme="power-of-two", choices=Choices(add="accumulator")).model
    target = simulated(board)
    plan = lower(quantized, target)
    files = target.build(plan, tmp_path)
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()} == set(files)
    with load(tmp_path) as compiled:
        for x in (pictures[:2], pictures[2:4]):
            want = integer_network.reference(quantized, {model.graph.input[0].name: x})
            for _ in range(2):  # what the run before left must not show
                got = compiled.run(x)
                assert [np.array_equal(a, b) for a, b in zip(got, want, strict=True)] == [True] * len(want)


def exact(model: onnx.ModelProto, x: np.ndarray, board: str, folder: Path) -> list[Refusal]:
    """Compile for a board, run on its simulated hardware, compare with the reference; what stayed on the host."""
    plan = lower(model, simulated(board))
    simulated(board).build(plan, folder)
    want = integer_network.reference(model, {model.graph.input[0].name: x})
    with load(folder) as compiled:
        for one, other in zip(compiled.run(x), want, strict=True):
            assert np.array_equal(one, other)
    return list(plan.kept)


def quantized_zoo(name: str, **options: object) -> tuple[onnx.ModelProto, np.ndarray]:
    """A network of the zoo in int8, untrained, and a picture."""
    module = models.build(name, **options)
    model, _ = optimise(capture.to_onnx(module, (1, *module.input_shape)), verify=False)
    pictures = np.random.default_rng(0).standard_normal((2, *module.input_shape), dtype=np.float32)
    choices = targets.parse("vta").choices_by_default()
    made = quantize(model, pictures, scheme="power-of-two", method="minmax", choices=choices).model
    return made, pictures[:1]


@pytest.mark.slow
@pytest.mark.parametrize("name", models.names())
def test_zoo_network(name, tmp_path: Path):
    spec = models.spec(name)
    size = max(spec.minimum, min(96, spec.input[1]))
    options = {"blocks": BLOCKS[name]} if name in BLOCKS else {}
    model, x = quantized_zoo(name, width=0.125, num_classes=12, input_size=(size, size), **options)
    for board in ("pynq", "de10nano"):
        (tmp_path / board).mkdir()
        kept = exact(model, x, board, tmp_path / board)
        assert {row.op for row in kept} <= ({"table"} if name == "lenet5" else {"depthwise"})


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["lenet5", "resnet18", "googlenet", "inception_v3", "inception_v4", "inception_resnet_v2"]
)
def test_network_at_its_size(name, tmp_path: Path):
    """The bundle's result, and every layer's of the streams on both hardwares."""
    model, x = quantized_zoo(name)
    network = integer_network.read(model)
    values = network.run({model.graph.input[0].name: x})
    target = simulated("pynq")
    target.build(lower(model, target), tmp_path)
    with load(tmp_path) as compiled:
        for got, output in zip(compiled.run(x), network.outputs, strict=True):
            assert np.array_equal(got, values[output])
    for board in ("pynq", "de10nano"):
        made = Simulated(model, values, simulated(board))
        assert not made.wrong
        assert set(made.compared) == made.stored


def test_windows_that_count_less_at_a_border_are_integers_here(tmp_path: Path) -> None:
    """Whatever the target would choose itself: it weighs the sums of a file that somebody quantized so."""
    text = (
        '<ir_version: 10, opset_import: ["" : 20]> g (float[1,3,8,8] x, float[16,3,3,3] w, float[16,16,1,1] v,'
        " float[16] b) => (float[1,16,8,8] y) { c = Conv<pads=[1,1,1,1]>(x, w) r = Relu(c)"
        " a = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(r) p = Conv(a, v, b) y = Relu(p) }"
    )
    random = np.random.default_rng(0)
    model = onnx.parser.parse_model(text)
    shapes = {"w": (16, 3, 3, 3), "v": (16, 16, 1, 1), "b": (16,)}
    for name, shape in shapes.items():
        model.graph.initializer.append(numpy_helper.from_array(random.standard_normal(shape, np.float32) / 4, name))
    del model.graph.input[1:]
    onnx.save(model, str(tmp_path / "net.onnx"))
    np.savez(tmp_path / "pictures.npz", inputs=random.standard_normal((4, 3, 8, 8), np.float32))
    told = {"calibration": tmp_path / "pictures.npz", "scheme": "power-of-two", "effort": "fast"}
    idp.quantize(tmp_path / "net.onnx", tmp_path / "q.onnx", average="summed", **told)
    shares = [
        idp.export(tmp_path / "q.onnx", tmp_path / target.replace(":", "-"), target=target)["quantization"]
        for target in ("vta:sim", "cpu")
    ]
    assert [share["integer_macs_percent"] == 100 for share in shares] == [True, False]
