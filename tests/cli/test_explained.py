"""What a bundle says of itself, tried by somebody who has nothing else: a plain Python with numpy, a C compiler, the README."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

import inception_deploy as idp
from inception_deploy.bundles import explain
from inception_deploy.runtime import preprocessing
from inception_deploy.runtime.labels import imagenet, known
from inception_deploy.verify import bound

ROOT = Path(__file__).resolve().parents[2]
PHOTO = ROOT / "examples" / "data" / "photo.jpg"
SCRIPT = Path(explain.__file__).with_name("data") / "infer.py"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has numpy and Pillow, and nothing else."""
    folder = tmp_path_factory.mktemp("plain")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for name in ("numpy", "pillow"):
        found = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}:
            (site / top).symlink_to(Path(str(found.locate_file(top))))
    missing = "import importlib.util as u; print([n for n in ('inception_deploy', 'onnx', 'torch') if u.find_spec(n)])"
    assert subprocess.run([folder / "bin" / "python", "-c", missing], capture_output=True, text=True).stdout == "[]\n"
    return folder / "bin"


def script(plain: Path, bundle: Path, *argv: object) -> str:
    command = [str(plain / "python"), str(bundle / "infer.py"), *map(str, argv)]
    done = subprocess.run(command, capture_output=True, text=True, env={}, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout


def pictures(folder: Path) -> list[Path]:
    """Pictures of every mode, one that stands on its side, and one smaller than the input."""
    pixels = np.random.default_rng(0).integers(0, 256, (50, 40, 4), np.uint8)
    deep = Image.fromarray((np.arange(60 * 50).reshape(60, 50) * 20).astype(np.uint16))
    turned = Image.Exif()
    turned[0x0112] = 6
    files = {"rgb.png": Image.fromarray(pixels[..., :3]), "alpha.png": Image.fromarray(pixels),
             "grey.png": Image.fromarray(pixels[..., 0]), "deep.png": deep,
             "small.png": Image.fromarray(pixels[:9, :30, :3])}  # fmt: skip
    for name, picture in files.items():
        picture.save(folder / name)
    Image.fromarray(pixels[..., :3]).save(folder / "turned.jpg", exif=turned)
    return [PHOTO, *(folder / name for name in files), folder / "turned.jpg"]


def test_infer_py_sees_what_run_sees(call, plain: Path, exported: Path, tmp_path: Path) -> None:
    files = pictures(tmp_path)
    document = call("run", exported, "--image", *files, "--json").document
    told = script(plain, exported, *files).splitlines()
    assert [line for line in told if not line.startswith(" ")] == [str(file) for file in files]
    rows = [line.split() for line in told if line.startswith(" ")]
    want = [guess for top in document["top"] for guess in top]
    assert [(int(row[0]), float(row[1]), row[2]) for row in rows] == [
        (g["index"], g["score"], g["label"]) for g in want
    ]


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_infer_py_gives_the_very_bytes_of_run(call, plain: Path, exported: Path, tmp_path: Path, rows: int) -> None:
    x = np.random.default_rng(rows).standard_normal((rows, 3, 32, 32), dtype=np.float32)
    np.save(tmp_path / "x.npy", x)
    assert call("run", exported, "--input", tmp_path / "x.npy", "--output", tmp_path / "want.npy").status == 0
    script(plain, exported, tmp_path / "x.npy", "-o", tmp_path / "got.npy")
    assert (tmp_path / "got.npy").read_bytes() == (tmp_path / "want.npy").read_bytes()


def infer(folder: Path):
    """infer.py as a module."""
    if not (folder / "infer.py").exists():
        shutil.copy(SCRIPT, folder)
    spec = importlib.util.spec_from_file_location("infer", folder / "infer.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"color": "bgr", "scale": "1", "mean": (103.939, 116.779, 123.68), "std": (1.0,) * 3, "layout": "nhwc"},
        {"scale": "1/127.5", "mean": (1.0,) * 3, "std": (1.0,) * 3, "interpolation": "bicubic", "resize": 40},
        {"mean": (0.5,), "std": (0.25,), "crop": (20, 31), "interpolation": "lanczos"},
        {"dtype": "uint8", "scale": "1", "mean": (0.0,) * 3, "std": (1.0,) * 3, "layout": "nhwc"},
        {"interpolation": "nearest", "resize": 9, "crop": (16, 16)},
    ],
)
def test_pictures_are_prepared_to_the_bit(tmp_path: Path, fields: dict) -> None:
    usual = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "resize": 32, "crop": (28, 28)}
    how = preprocessing.Preprocessing(**{**usual, **fields})
    (tmp_path / "preprocessing.json").write_text(json.dumps(preprocessing.as_dict(how)))
    module = infer(tmp_path)
    for file in pictures(tmp_path):
        got, want = module.prepare(file), preprocessing.load([file], how)[0]
        assert (got.dtype, got.flags.c_contiguous) == (want.dtype, True)
        np.testing.assert_array_equal(got, want)


def as_printed(plain: Path, source: Path, folder: Path) -> list[str]:
    """Runs every block of a bundle's README in order in a copy of it; gives their languages. `python3`, `cc` and `pip` are as a
    stranger has them."""
    bundle, tools = folder / "bundle", folder / "bin"
    shutil.copytree(source, bundle)
    shutil.copy(PHOTO, folder / "photo.jpg")
    tools.mkdir()
    shims = {
        "python3": f'exec "{plain / "python"}" "$@"',
        "cc": f'exec "{sys.executable}" -m ziglang cc "$@"',
        "pip": 'echo "{numpy,pillow} are there" >&2; test "$1 $2" = "install numpy"',
        "inception-deploy": f'exec "{sys.executable}" -m inception_deploy "$@"',
    }
    for name, line in shims.items():
        (tools / name).write_text(f"#!/bin/sh\n{line}\n")
        (tools / name).chmod(0o755)
    env = {**os.environ, "PATH": f"{tools}:/usr/bin:/bin"}
    blocks = re.findall(r"```(\w+)\n(.*?)```", (bundle / "README.md").read_text(), flags=re.S)
    for language, content in blocks:
        if content.startswith("cmake") and shutil.which("cmake") is None:
            continue
        interpreter = str(plain / "python") if "from infer" in content else sys.executable
        command = ["bash", "-e", "-c", content] if language == "sh" else [interpreter, "-c", content]
        done = subprocess.run(command, cwd=bundle, env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"{content}\n{done.stderr}"
    assert (folder / "build/network").exists() == (shutil.which("cmake") is not None)
    return [language for language, _ in blocks]


def test_the_readme_works_as_printed(plain: Path, exported: Path, tmp_path: Path) -> None:
    assert as_printed(plain, exported, tmp_path) == ["sh", "python", "sh", "sh", "sh", "python", "sh"]
    python, c = np.load(tmp_path / "output.npy"), np.fromfile(tmp_path / "output.raw", np.float32)
    np.testing.assert_array_equal(python.ravel(), c)
    np.testing.assert_array_equal(python, np.load(tmp_path / "program.npy"))


@pytest.fixture(scope="module")
def two_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose network takes two inputs and gives two outputs."""
    folder = tmp_path_factory.mktemp("two")
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Relu", ["sum"], ["high"])]
    nodes += [helper.make_node("GlobalAveragePool", ["sum"], ["mean"])]
    ports = {"a": [1, 8, 6, 5], "b": [1, 8, 6, 5], "high": [1, 8, 6, 5], "mean": [1, 8, 1, 1]}
    told = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ports.items()}
    graph = helper.make_graph(nodes, "two", [told["a"], told["b"]], [told["high"], told["mean"]])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), str(folder / "two.onnx"))
    assert idp.export(folder / "two.onnx", folder / "bundle")["ok"]
    return folder / "bundle"


STRICT = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror")


@pytest.mark.parametrize("compiler", ["gcc", "zig"])
def test_main_c_with_several_inputs(compiler: str, plain: Path, two_inputs: Path, tmp_path: Path) -> None:
    found = [sys.executable, "-m", "ziglang", "cc"] if compiler == "zig" else [shutil.which("gcc")]
    if found[0] is None:
        pytest.skip("no gcc here")
    built = [*found, *STRICT, "-I.", "main.c", "./model.so", f"-Wl,-rpath,{two_inputs}", "-o", tmp_path / "network"]
    subprocess.run(built, cwd=two_inputs, check=True)

    def network(*argv: object) -> tuple[int, str]:
        command = [str(tmp_path / "network"), *map(str, argv)]
        done = subprocess.run(command, cwd=two_inputs, capture_output=True, text=True, env={})
        return done.returncode, done.stderr

    status, told = network("weights.bin")
    assert status == 2
    assert told.splitlines()[1:] == [
        "  input a, float32: 1 8 6 5, 960 bytes", "  input b, float32: 1 8 6 5, 960 bytes",
        "  output high, float32: 1 8 6 5, 960 bytes", "  output mean, float32: 1 8 1 1, 32 bytes",
    ]  # fmt: skip
    a, b = np.random.default_rng(0).standard_normal((2, 1, 8, 6, 5), dtype=np.float32)
    files = [tmp_path / name for name in ("a", "b", "high", "mean")]
    for array, file in zip((a, b), files, strict=False):
        array.tofile(file)
    assert network("weights.bin", *files) == (0, "")
    want = infer(two_inputs).Network().run(a, b)
    for file, y in zip(files[2:], want, strict=True):
        np.testing.assert_array_equal(np.fromfile(file, np.float32), y.ravel())
    files[1].write_bytes(files[1].read_bytes()[:-1])
    status, told = network("weights.bin", *files)
    assert (status, told.splitlines()[-1]) == (1, f"{files[1]}: cannot be read, or has another size")
    status, told = network("model.so", *files)
    assert (status, told.startswith("model.so: the weights")) == (1, True)


def test_the_readme_of_several_inputs_works_as_printed(plain: Path, two_inputs: Path, tmp_path: Path) -> None:
    assert as_printed(plain, two_inputs, tmp_path) == ["sh", "sh", "sh", "sh", "python", "sh"]
    assert (tmp_path / "output1.raw").stat().st_size == 32


def test_what_the_files_say(exported: Path) -> None:
    how = json.loads((exported / "preprocessing.json").read_text())
    manifest = json.loads((exported / "manifest.json").read_text())
    assert {key: how[key] for key in manifest["preprocessing"]} == manifest["preprocessing"]
    assert how["inputs"] == [{"name": "input", "shape": [2, 3, 32, 32], "dtype": "float32"}]
    assert how["outputs"][0]["kind"] == "logits"
    assert preprocessing.from_dict(how)
    assert not (exported / "labels.txt").exists(), "nobody knows the names of its 7 classes"
    text = (exported / "README.md").read_text()
    assert text.startswith("# build for cpu, fp32\n")
    assert "Nobody trained it" not in text
    assert "Nobody trained it" in explain.readme(exported, {**manifest, "zoo": {"trained": False}}, [], [])
    listed = set(re.findall(r"^\| `([\w.-]+)` \|", text, flags=re.M))
    assert listed == {path.name for path in exported.iterdir()} - {"README.md", "__pycache__"}
    stages = json.loads((exported / "verify.json").read_text())["stages"]
    assert all(f"| {row['stage']} | {row['reference']} | {row['max_rel']:.2g} |" in text for row in stages)
    assert (exported / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_preprocessing_json_says_the_preprocessing_of_another_export(
    call, branchy: str, exported: Path, tmp_path: Path
) -> None:
    argv = [
        "export",
        "--model",
        branchy,
        "--input-size",
        32,
        "--no-verify",
        "-o",
        tmp_path / "again",
        "--preprocessing",
    ]
    assert call(*argv, exported / "preprocessing.json").status == 0
    again, first = (json.loads((path / "manifest.json").read_text()) for path in (tmp_path / "again", exported))
    assert again["preprocessing"] == first["preprocessing"]


def test_labels_are_those_of_run() -> None:
    assert known(None, [1, 1000]) == imagenet()
    assert known(["a", "b"], [4, 2]) == ["a", "b"]
    assert known(["a", "b"], [4, 2, 1, 1]) == ["a", "b"]
    for labels, shape in ((None, [1, 7]), (["a"], [1, 7]), (None, [1, 1000, 8, 8]), (None, [])):
        assert known(labels, shape) == ()


def test_the_script_is_short_and_needs_numpy_alone() -> None:
    text = SCRIPT.read_text()
    assert len(text.splitlines()) < 120
    tops = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            tops |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            tops.add(node.module.split(".")[0])
    assert tops - set(sys.stdlib_module_names) == {"numpy", "PIL"}


def test_a_softmax_is_not_taken_twice(plain: Path, exported: Path, tmp_path: Path) -> None:
    """Scores of a network that ends in probabilities are its outputs."""
    bundle = tmp_path / "bundle"
    shutil.copytree(exported, bundle)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["outputs"][0]["kind"] = "probabilities"
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    np.save(tmp_path / "x.npy", np.ones((1, 3, 32, 32), np.float32))
    script(plain, bundle, tmp_path / "x.npy", "-o", tmp_path / "y.npy")
    scores = [float(line.split()[1]) for line in script(plain, bundle, tmp_path / "x.npy", "--top", 7).splitlines()[1:]]
    np.testing.assert_allclose(scores, -np.sort(-np.load(tmp_path / "y.npy")[0]), atol=bound("rounding"))
