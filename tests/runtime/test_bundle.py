"""A bundle is opened whole and unharmed, or not at all; a hostile one touches nothing outside its folder."""

from __future__ import annotations

import json
import re
import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest

from inception_deploy import artifact
from inception_deploy.errors import DeployError
from inception_deploy.runtime import bundle

MANIFEST: dict[str, Any] = {
    "model": "lenet5",
    "target": "cpu",
    "target_details": {"kind": "cpu", "variant": "avx2"},
    "memory": {"arena_bytes": 64, "weights_bytes": 64},
    "precision": "fp32",
    "inputs": [{"name": "input", "shape": [1, 1, 32, 32], "dtype": "float32"}],
    "outputs": [{"name": "logits", "shape": [1, 10], "dtype": "float32"}],
    "preprocessing": None,
    "tools": {},
}


def make(folder: Path, **changes: object) -> Path:
    (folder / "lib").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"onnx")
    (folder / "lib" / "model.so").write_bytes(b"code")
    (folder / "verify.json").write_text('{"ok": true, "stages": [], "not_run": []}')
    bundle.seal(folder, MANIFEST | changes)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path / "b")


def refused(path: Path) -> str:
    """The message `path` is refused with; it names the bundle."""
    with pytest.raises(DeployError) as caught, bundle.open(path):
        pytest.fail("a bad bundle was opened")
    assert caught.value.kind == "bundle"
    assert caught.value.message.startswith(f"bundle {path} ")
    return caught.value.message.removeprefix(f"bundle {path} ")


def edit(folder: Path, **changes: object) -> Path:
    manifest = json.loads((folder / "manifest.json").read_text()) | changes
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_folder_and_its_zip_open_alike(folder: Path, tmp_path: Path) -> None:
    artifact.write_zip(folder, tmp_path / "b.zip")
    with bundle.open(folder) as one, bundle.open(tmp_path / "b.zip") as other:
        assert one.manifest == other.manifest
        assert one.input_shape == (1, 1, 32, 32)
        assert one.onnx.read_bytes() == other.onnx.read_bytes() == b"onnx"
        assert other.document("verify.json") == {"ok": True, "stages": [], "not_run": []}
        assert set(one.manifest["files"]) == {"model.onnx", "lib/model.so", "verify.json"}
        unpacked = other.folder
    assert not unpacked.exists()


@pytest.mark.parametrize("name", ["model.onnx", "lib/model.so", "verify.json"])
def test_a_changed_byte_is_found_before_anything_is_used(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"evil")
    assert refused(folder) == f"is damaged: {name} has not the SHA-256 of its manifest"


def test_a_missing_and_an_extra_file(folder: Path) -> None:
    (folder / "model.onnx").rename(folder / "other.onnx")
    assert refused(folder) == "lacks model.onnx"
    (folder / "model.onnx").write_bytes(b"onnx")
    assert refused(folder) == "holds files that its manifest does not name: other.onnx"


def test_a_symbolic_link_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "model.onnx").rename(tmp_path / "outside")
    (folder / "model.onnx").symlink_to(tmp_path / "outside")
    assert refused(folder) == "model.onnx is a symbolic link"


def test_a_linked_subfolder_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "lib").rename(tmp_path / "lib")
    (folder / "lib").symlink_to(tmp_path / "lib")
    assert "lib" in refused(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "manifest.json: field 'schema_version' is 2"),
        ({"schema_version": None}, "manifest.json: field 'schema_version' is None"),
        ({"model": 5}, "manifest.json: field 'model' is 5, not a text"),
        ({"files": []}, "manifest.json: field 'files' is [], not an object"),
        ({"files": {}}, "holds files that its manifest does not name: lib/model.so, model.onnx, verify.json"),
        ({"inputs": []}, "manifest.json: field 'inputs' is [], not at least one"),
        ({"inputs": [{"name": "x", "dtype": "float32", "shape": [0]}]}, "manifest.json: field 'inputs[0].shape[0]' is 0, not a whole number from 1 to 2147483647"),
        ({"outputs": ["x"]}, "manifest.json: field 'outputs[0]' is 'x', not an object"),
        ({"files": {"../x": "0" * 64}}, "manifest.json: field 'files' has a bad entry '../x'"),
        ({"files": {"/etc/passwd": "0" * 64}}, "manifest.json: field 'files' has a bad entry '/etc/passwd'"),
        ({"files": {"a//b": "0" * 64}}, "manifest.json: field 'files' has a bad entry 'a//b'"),
        ({"files": {"model.onnx": "short"}}, "manifest.json: field 'files' has a bad entry 'model.onnx'"),
    ],
)  # fmt: skip
def test_a_wrong_manifest_names_the_field(folder: Path, changes: dict[str, object], message: str) -> None:
    assert refused(edit(folder, **changes)) == message


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00", "[" * 100_000])
def test_a_manifest_that_is_no_object(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    assert re.match(r"manifest.json is not (JSON: |an object)", refused(folder))


def test_what_is_no_bundle(tmp_path: Path) -> None:
    assert refused(tmp_path / "nowhere") == "does not exist"
    assert refused(tmp_path) == "has no manifest.json"
    (tmp_path / "x").write_text("hello")
    assert refused(tmp_path / "x") == "is neither a folder nor a zip"


def zipped(path: Path, entries: list[tuple[str | zipfile.ZipInfo, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil", "a\\..\\evil", "C:/evil", "./evil"])
def test_a_zip_that_leaves_its_folder_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    path = zipped(tmp_path / "b.zip", [("manifest.json", b"{}"), (name, b"x")])
    assert refused(path) == f"has an entry that leaves its folder: {name!r}"
    assert [p.name for p in tmp_path.iterdir()] == ["b.zip"]


def test_a_zip_with_a_link_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("model.onnx")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = zipped(tmp_path / "b.zip", [("manifest.json", b"{}"), (link, b"/etc/passwd")])
    assert refused(path) == "has an entry that is no regular file: 'model.onnx'"


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "b.zip", [("model.onnx", bytes(100 << 20))])
    assert refused(path) == "unpacks to more than a bundle can hold"


def test_a_zip_that_names_a_file_twice_is_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = zipped(tmp_path / "b.zip", [("a", b"1"), ("a", b"2")])
    assert refused(path) == "names an entry twice"


def test_a_file_in_the_way_of_a_folder(tmp_path: Path) -> None:
    path = zipped(tmp_path / "b.zip", [("a", b"1"), ("a/b", b"2")])
    assert refused(path) == "has an entry where another has its folder"


@pytest.mark.parametrize("keep", [0.3, 0.7, 0.95])
def test_a_truncated_zip(folder: Path, tmp_path: Path, keep: float) -> None:
    whole = tmp_path / "b.zip"
    artifact.write_zip(folder, whole)
    whole.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * keep)])
    assert refused(whole) == "is neither a folder nor a zip"


def test_every_damaged_byte_of_a_zip_is_found_or_harmless(folder: Path, tmp_path: Path) -> None:
    """Flip bytes all over a zip: it opens with the very content, or is refused as a bundle; nothing else happens."""
    whole = tmp_path / "b.zip"
    artifact.write_zip(folder, whole)
    good = whole.read_bytes()
    for position in range(len(good)):
        whole.write_bytes(good[:position] + bytes([good[position] ^ 0x55]) + good[position + 1 :])
        kind, content = "opened", b"code"
        try:
            with bundle.open(whole) as opened:
                content = (opened.folder / "lib/model.so").read_bytes()
        except DeployError as error:
            kind = error.kind
        assert content == b"code"
        assert kind in ("opened", "bundle", "disk")


def test_sealing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    assert (make(tmp_path / "a") / "manifest.json").read_bytes() == (
        make(tmp_path / "b") / "manifest.json"
    ).read_bytes()
