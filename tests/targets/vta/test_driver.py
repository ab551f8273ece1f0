"""Driver libraries named at run time: others' of the same ten functions, broken ones, hosts whose cache nobody keeps coherent."""

from __future__ import annotations

import ctypes
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inception_deploy.errors import DeployError
from inception_deploy.kernels.vta.profiles import PROFILES
from inception_deploy.runtime import compiled
from inception_deploy.targets import link
from inception_deploy.targets.vta import driver, pieces

from . import products


@pytest.fixture(scope="module")
def libraries(tmp_path_factory, tiny) -> dict[str, Path]:
    """Drivers: the product's simulator, an executor of other hands, a host without coherence, one that lacks a function."""
    folder = tmp_path_factory.mktemp("drivers")
    paths = {name: folder / f"lib{name}.so" for name in ("simulator", "second", "noncoherent", "lacking")}
    driver.write_simulator(products.CONFIG, PROFILES["hls"], paths["simulator"], tiny.triple)
    compiled_c = {
        name: link.compile_c((products.C / f"{name}.c").read_text(), f"{name}.c", tiny.triple)
        for name in ("second", "noncoherent")
    }
    driver.link([compiled_c["second"]], paths["second"], tiny.triple, ["second_fails", "second_runs"])
    mocks = ["mock_around", "mock_wrong", "mock_largest"]
    driver.link([compiled_c["noncoherent"]], paths["noncoherent"], tiny.triple, mocks)
    link.link_shared(
        [compiled_c["second"]], [f for f in driver.FUNCTIONS if f != "VTADeviceRun"], paths["lacking"], tiny.triple
    )
    return paths


@pytest.fixture
def second(libraries):
    """The second driver, whole again afterwards."""
    library = ctypes.CDLL(str(libraries["second"]))
    yield library
    library.second_fails(0)


@pytest.fixture
def noncoherent(libraries):
    """`noncoherent(inner)`: the driver around another."""
    library = ctypes.CDLL(str(libraries["noncoherent"]))
    library.mock_wrong.restype = library.mock_largest.restype = ctypes.c_uint64

    def around(inner: str) -> ctypes.CDLL:
        assert library.mock_around(str(libraries[inner]).encode())
        return library

    return around


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(4).integers(-128, 128, (1, products.COUNT)).astype(np.float32)


@pytest.mark.parametrize("write", [products.write, products.for_pynq], ids=["simulating", "board"])
@pytest.mark.parametrize("named", ["simulator", "second"])
def test_a_model_runs_unmodified_on_either_driver(tiny, tmp_path, libraries, second, pixels, write, named):
    folder = write(products.plan(3), tmp_path / "model", tiny.triple)
    before = second.second_runs()
    with compiled.load(folder, threads=2, driver=libraries[named]) as model:
        for number in range(3):
            x = np.roll(pixels, number)
            np.testing.assert_array_equal(model.run(x)[0], products.expected(x, 3))
    assert second.second_runs() - before == (9 if named == "second" else 0)


def test_a_board_takes_the_library_beside_the_weights(tiny, tmp_path, libraries, pixels):
    folder = products.for_pynq(products.plan(2), tmp_path / "model", tiny.triple)
    with pytest.raises(DeployError, match=r"the VTA's driver cannot be loaded: .*libvta\.so") as caught:
        compiled.load(folder, threads=1)
    assert caught.value.kind == "device"
    (folder / "libvta.so").write_bytes(libraries["simulator"].read_bytes())
    with compiled.load(folder, threads=1) as model:
        np.testing.assert_array_equal(model.run(pixels)[0], products.expected(pixels, 2))


@pytest.mark.parametrize("inner", ["simulator", "second"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_host_without_coherence_loses_nothing(tiny, tmp_path, libraries, noncoherent, pixels, inner, count):
    folder = products.write(products.plan(count), tmp_path / "model", tiny.triple)
    mock = noncoherent(inner)
    before = mock.mock_wrong()
    with compiled.load(folder, threads=2, driver=libraries["noncoherent"]) as model:
        for number in range(4):
            x = np.roll(pixels, number)
            np.testing.assert_array_equal(model.run(x)[0], products.expected(x, count))
    assert mock.mock_wrong() == before


@pytest.mark.parametrize("lost", ["flush", "invalidate"])
def test_a_host_without_coherence_finds_what_is_not_flushed(
    tiny, tmp_path, libraries, noncoherent, pixels, monkeypatch, lost
):
    """The mock is worth something: it notices a library that leaves one of the two away."""
    seen = pieces.seen

    def half(plan, steps):
        flushed, touched = seen(plan, steps)
        return ([], touched) if lost == "flush" else (flushed, [])

    monkeypatch.setattr(pieces, "seen", half)
    folder = products.write(products.plan(2), tmp_path / "model", tiny.triple)
    noncoherent("second")
    with compiled.load(folder, threads=1, driver=libraries["noncoherent"]) as model:
        wrong = [not np.array_equal(model.run(x)[0], products.expected(x, 2)) for x in (pixels, pixels[:, ::-1])]
    assert any(wrong)


def test_what_is_not_flushed_is_no_part_of_the_simulators_memory(tiny, tmp_path, libraries, capfd):
    """A caller of the ten functions that forgets to flush its stream."""
    library = ctypes.CDLL(str(libraries["simulator"]))
    library.VTAMemAlloc.restype = library.VTADeviceAlloc.restype = ctypes.c_void_p
    library.VTAMemGetPhyAddr.restype = ctypes.c_size_t
    device, memory = library.VTADeviceAlloc(), library.VTAMemAlloc(4096, 1)
    address = library.VTAMemGetPhyAddr(ctypes.c_void_p(memory))
    assert 2**31 <= address < 2**32
    assert address != memory
    arguments = (ctypes.c_void_p(device), ctypes.c_size_t(address), 1, 10)
    assert library.VTADeviceRun(*arguments) == 1
    assert "instruction 0 or one behind it was not flushed" in capfd.readouterr().err
    assert library.VTADeviceRun(arguments[0], ctypes.c_size_t(16), 1, 10) == 1
    assert "outside of every buffer" in capfd.readouterr().err
    library.VTAMemFree(ctypes.c_void_p(memory))
    library.VTADeviceFree(ctypes.c_void_p(device))


def test_weights_of_several_allocations(tiny, tmp_path, libraries, noncoherent, pixels):
    """More than a driver allocates at once: pieces, cut where no tensor is. Here two, of which a product has one each."""
    size = 40 << 20
    far = 30 << 20
    weights = bytearray(size)
    for at in (0, far):
        weights[at : at + 512] = products.CASE.wgt.tobytes()
    made = products.plan(2, bytes(weights))
    second_product = replace(
        made.steps[3], args=(made.steps[3].args[0], products.Ref("vta weights", far), made.steps[3].args[2])
    )
    made = replace(made, steps=(*made.steps[:3], second_product, *made.steps[4:]))
    streams = [products.stream(), products.stream(far)]
    folder = products.write(made, tmp_path / "model", tiny.triple, streams)
    mock = noncoherent("simulator")
    for named in (None, libraries["noncoherent"]):
        with compiled.load(folder, threads=1, driver=named) as model:
            np.testing.assert_array_equal(model.run(pixels)[0], products.expected(pixels, 2))
    assert size > 32 << 20
    assert mock.mock_largest() <= 32 << 20


def test_activations_that_no_driver_allocates(tiny, tmp_path):
    made = products.plan(1)
    table = tuple(replace(m, bytes=33 << 20) if m.name == "vta" else m for m in made.memories)
    with pytest.raises(DeployError, match="vta of 34603008 bytes is more than a VTA's driver allocates") as caught:
        products.write(replace(made, memories=table), tmp_path / "model", tiny.triple)
    assert caught.value.kind == "vta"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (1, r"the VTA is not done after 20000000 polls, or its driver failed \(VTADeviceRun returned 1\)"),
        (2, "the VTA's driver finds no VTA"),
        (3, "the VTA's driver has no [0-9]+ bytes of contiguous memory"),
        (4, "not aligned alike"),
    ],
)
def test_a_driver_that_fails_says_so_and_can_be_asked_again(tiny, tmp_path, libraries, second, pixels, how, message):
    folder = products.write(products.plan(1), tmp_path / "model", tiny.triple)
    if how > 1:
        second.second_fails(how)
        with pytest.raises(DeployError, match=message):
            compiled.load(folder, threads=1, driver=libraries["second"])
        second.second_fails(0)
    with compiled.load(folder, threads=1, driver=libraries["second"]) as model:
        if how == 1:
            second.second_fails(how)
            with pytest.raises(DeployError, match=message) as caught:
                model.run(pixels)
            assert caught.value.kind == "device"
            second.second_fails(0)
        np.testing.assert_array_equal(model.run(pixels)[0], products.expected(pixels))


def test_a_driver_that_lacks_a_function_or_is_none(tiny, tmp_path, libraries, build):
    folder = products.write(products.plan(1), tmp_path / "model", tiny.triple)
    with pytest.raises(DeployError, match=r"liblacking\.so lacks VTADeviceRun$") as caught:
        compiled.load(folder, threads=1, driver=libraries["lacking"])
    assert caught.value.kind == "device"
    with pytest.raises(DeployError, match="cannot be read"):
        compiled.load(folder, threads=1, driver=tmp_path / "nothing.so")
    (tmp_path / "text.so").write_text("nothing")
    with pytest.raises(DeployError, match="is not a shared library"):
        compiled.load(folder, threads=1, driver=tmp_path / "text.so")
    on_cpu = build(tiny.chain(1))
    with pytest.raises(DeployError, match="the model for cpu has no accelerator whose driver can be chosen") as caught:
        compiled.load(on_cpu, threads=1, driver=libraries["second"])
    assert caught.value.kind == "driver"


def test_two_models_share_one_vta(tiny, tmp_path, libraries, pixels):
    """Streams run one at a time; handles have memory of their own."""
    folder = products.write(products.plan(2), tmp_path / "model", tiny.triple)
    wrong: list[int] = []
    with compiled.load(folder, threads=1) as one, compiled.load(folder, threads=1) as two:

        def work(model: compiled.CompiledModel, shift: int) -> None:
            x = np.roll(pixels, shift)
            for _ in range(50):
                if not np.array_equal(model.run(x)[0], products.expected(x, 2)):
                    wrong.append(shift)

        threads = [threading.Thread(target=work, args=pair) for pair in ((one, 1), (two, 5))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_the_vta_takes_and_gives_the_ports(tiny, tmp_path, libraries, noncoherent, pixels):
    """A plan without a step of the host: inputs are copied and flushed, outputs invalidated and copied."""
    made, code = products.alone()
    folder = products.write(made, tmp_path / "model", tiny.triple, [code])
    mock = noncoherent("second")
    before = mock.mock_wrong()
    for named in (None, libraries["noncoherent"]):
        with compiled.load(folder, threads=1, driver=named) as model:
            for number in range(3):
                x = np.roll(pixels, number)
                given = model.run(x.astype(np.int8))[0]
                np.testing.assert_array_equal(given, products.expected(x).astype(np.int8))
    assert mock.mock_wrong() == before
