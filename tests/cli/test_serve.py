"""`export --serve triton`: the repository is tried with a stand-in of the python backend, and, slowly, by Triton itself."""

from __future__ import annotations

import ast
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import inception_deploy as idp
import inception_deploy.verify as verify

from ..serving import backend

SERVER = "INCEPTION_DEPLOY_TRITON"
"""Names a folder that has the server: pip install --no-deps --target FOLDER nvidia-pytriton 'numpy<2'."""

NAME = "build"


@pytest.fixture(scope="module")
def served(branchy: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository of `branchy`, (2, 3, 32, 32) -> (2, 7)."""
    path = tmp_path_factory.mktemp("serve") / "repository"
    document = idp.export(branchy, path, input_size=32, batch=2, serve="triton")
    assert document["bundle"] == str(path / NAME / "1" / "bundle")
    assert document["serve"] == {"kind": "triton", "repository": str(path), "models": [NAME, f"{NAME}_onnx"]}
    assert "serve" in document["seconds"]
    return path


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3, 32, 32), dtype=np.float32)


def expected(served: Path, x: np.ndarray) -> np.ndarray:
    return np.asarray(idp.load(served / NAME / "1" / "bundle")(x))


def test_the_repository_has_what_the_server_looks_for(served: Path) -> None:
    found = {path.relative_to(served).as_posix() for path in served.rglob("*") if path.is_file()}
    outside = {path for path in found if "/bundle/" not in path}
    assert outside == {
        "README.md",
        *(f"{NAME}/{file}" for file in ("config.pbtxt", "1/model.py")),
        *(f"{NAME}_onnx/{file}" for file in ("config.pbtxt", "1/model.onnx")),
    }
    assert idp.verify(served / NAME / "1" / "bundle")["ok"]


def test_requests_that_were_gathered_get_their_own_rows(served: Path) -> None:
    model = backend.started(served / NAME)
    given = [rows(1, 1), rows(3, 2), rows(2, 3)]
    answers = model.execute([backend.Request(input=x) for x in given])
    assert [answer.error for answer in answers] == [None] * 3
    # Each row as `run` gives it, to the bit, whatever batch it was in.
    for x, answer in zip(given, answers, strict=True):
        np.testing.assert_array_equal(answer.outputs["logits"], expected(served, x))


def test_a_request_that_fails_is_answered(served: Path) -> None:
    model = backend.started(served / NAME)
    (answer,) = model.execute([backend.Request(input=np.zeros((2, 3, 32, 31), np.float32))])
    assert answer.error.message() == "input input is float32 (2, 3, 32, 32), not float32 (2, 3, 32, 31)"
    (answer,) = model.execute([backend.Request(input=rows(1))])
    assert answer.error is None


def test_nothing_is_written_into_the_bundle(served: Path, tmp_path: Path) -> None:
    """In a fresh process, as the server's is: a bundle with a file too many counts as damaged."""
    copy = tmp_path / "repository"
    shutil.copytree(served, copy)
    script = (
        f"import sys, types; sys.modules['triton_python_backend_utils'] = types.ModuleType('t')\n"
        f"sys.path.insert(0, {str(copy / NAME / '1')!r})\n"
        f"import model\n"
        f"model.TritonPythonModel().initialize({{'model_repository': {str(copy / NAME)!r}, 'model_version': '1',"
        f" 'model_config': '{{\"max_batch_size\": 8}}', 'model_instance_kind': 'CPU'}})"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env={})
    assert idp.load(copy / NAME / "1" / "bundle")(rows(1)) is not None


def test_a_damaged_bundle_is_not_opened(served: Path, tmp_path: Path) -> None:
    copy = tmp_path / "repository"
    shutil.copytree(served, copy)
    weights = copy / NAME / "1" / "bundle" / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(RuntimeError, match=r"weights.bin is damaged: its SHA-256 is [0-9a-f]{64}, not "):
        backend.started(copy / NAME)


def test_threads_are_those_of_the_configuration(served: Path, tmp_path: Path) -> None:
    copy = tmp_path / "repository"
    shutil.copytree(served, copy)
    config = copy / NAME / "config.pbtxt"
    for threads in (1, 3):
        config.write_text(re.sub(r'string_value: "\d+"', f'string_value: "{threads}"', config.read_text()))
        before = len(os.listdir("/proc/self/task"))
        model = backend.started(copy / NAME)
        assert len(os.listdir("/proc/self/task")) - before == threads - 1
        assert model.batched


@pytest.mark.parametrize(
    ("visible", "device", "chosen"), [(None, 1, "1"), ("2,3", 1, "3"), ("GPU-a, GPU-b", 1, "GPU-b")]
)
def test_an_instance_sees_its_own_gpu(
    served: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, device: int, chosen: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")
    backend.started(served / NAME, kind="GPU", device=device)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == chosen


def test_the_model_needs_numpy_alone() -> None:
    text = (Path(idp.__file__).parent / "serving" / "data" / "triton_model.py").read_text()
    names = {
        (node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name).partition(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert names - sys.stdlib_module_names == {"numpy", "triton_python_backend_utils"}


def test_the_onnx_takes_any_number_of_rows(served: Path) -> None:
    model = onnx.load(served / f"{NAME}_onnx" / "1" / "model.onnx")
    for count in (1, 2, 5):
        x = rows(count, count)
        row = verify.compare(expected(served, x), verify.run_onnx(model, {"input": x})[0], "compiled")
        assert verify.require_ok(row)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--serve", "trtion"], "there is no --serve trtion"),
        (["--serve", "triton", "--target", "vta:sim"], "--serve triton is for bundles that such a server can load, and one for vta is none"),
        (["--serve", "triton", "--onnx-only"], "--serve triton serves the compiled network beside its ONNX, and --onnx-only compiles none"),
        (["--serve", "triton", "-o", "net.zip"], "--serve triton writes a folder, and net.zip is the name of a zip"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_refused_at_once(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call("export", "--model", "lenet5", "-o", "net", *argv, "--json")
    assert (result.status, result.error["message"]) == (2, message)
    assert list(tmp_path.iterdir()) == []


# -- the server itself -------------------------------------------------------------------------------------------------


@contextmanager
def triton(repository: Path, folder: Path) -> Iterator[http.client.HTTPConnection]:
    """NVIDIA's server on loopback, models loaded when asked for; a connection to it."""
    home = Path(os.environ[SERVER])
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    server = home / "pytriton" / "tritonserver"
    backends = folder / "backends" / "python"
    shutil.copytree(server / "backends" / "python", backends)
    shutil.copy(server / "python_backend_stubs" / version / "triton_python_backend_stub", backends)
    for package in home.glob("numpy*"):
        (backends / package.name).symlink_to(package)
    for program in (backends / "triton_python_backend_stub", server / "bin" / "tritonserver"):
        program.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = [server / "bin" / "tritonserver", "--model-repository", repository, "--backend-directory", backends.parent,
            "--http-address", "127.0.0.1", "--http-port", port, "--allow-grpc", "false", "--allow-metrics", "false",
            "--model-control-mode", "explicit"]  # fmt: skip
    env = {**os.environ, "LD_LIBRARY_PATH": str(home / "nvidia_pytriton.libs")}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*map(str, argv)], stdout=log, stderr=log, env=env)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        while ask(connection, "GET", "health/ready")[0] != 200:
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.2)
        yield connection
    finally:
        connection.close()
        process.terminate()
        process.wait()


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes = b"", head: int = 0
) -> tuple[int, Any]:
    try:
        connection.request(method, f"/v2/{path}", body, {"Inference-Header-Content-Length": str(head)} if head else {})
        answer = connection.getresponse()
    except ConnectionRefusedError:  # it has not started yet
        connection.close()
        return 0, None
    content = answer.read()
    return answer.status, json.loads(content) if content else None


def infer(connection: http.client.HTTPConnection, x: np.ndarray, **wanted: Any) -> tuple[int, Any]:
    port = {"name": "input", "shape": x.shape, "datatype": "FP32", "parameters": {"binary_data_size": x.nbytes}}
    head = json.dumps({"inputs": [port], "outputs": [{"name": "logits", "parameters": wanted}]}).encode()
    return ask(connection, "POST", f"models/{NAME}/infer", head + x.tobytes(), len(head))


@pytest.mark.slow
@pytest.mark.skipif(
    SERVER not in os.environ,
    reason=f"no server: pip install --no-deps --target FOLDER nvidia-pytriton 'numpy<2', and {SERVER}=FOLDER",
)
def test_triton_serves_it(served: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(served, repository)
    (repository / NAME / "labels.txt").write_text("".join(f"class {index}\n" for index in range(7)))
    config = repository / NAME / "config.pbtxt"
    config.write_text(config.read_text().replace('name: "logits"', 'name: "logits"\n  label_filename: "labels.txt"'))
    with triton(repository, tmp_path) as connection:
        assert ask(connection, "POST", f"repository/models/{NAME}/load") == (200, None)
        status, said = ask(connection, "GET", f"models/{NAME}/config")
        assert status == 200
        assert said["max_batch_size"] == 64
        assert said["dynamic_batching"]["preferred_batch_size"] == [2]
        for count in (1, 2, 5):
            x = rows(count, count)
            status, answer = infer(connection, x)
            assert status == 200
            (output,) = answer["outputs"]
            got = np.array(output["data"], np.float32).reshape(output["shape"])
            np.testing.assert_array_equal(got, expected(served, x))
        best = expected(served, rows(1))[0].argmax()
        status, answer = infer(connection, rows(1), classification=1)
        assert answer["outputs"][0]["data"][0].endswith(f":{best}:class {best}")
        status, answer = infer(connection, rows(65))
        assert status == 400
        assert "batch-size must be <= 64" in answer["error"]
        # Its wheel ships the python backend alone: that the backend is what it misses shows that it took the configuration.
        status, answer = ask(connection, "POST", f"repository/models/{NAME}_onnx/load")
        assert status == 400
        assert "unable to find backend library for backend 'onnxruntime'" in answer["error"]
    assert idp.verify(repository / NAME / "1" / "bundle")["ok"]
