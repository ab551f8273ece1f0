"""What is there for those who publish and package: a citation, a Dockerfile, a release workflow, and the archives themselves."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import inception_deploy as idp

ROOT = Path(__file__).resolve().parents[1]


def test_there_is_one_version() -> None:
    assert f"\nversion: {idp.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_setuptools_takes_the_project_file() -> None:
    """The environment of a developer is older than a wrong line in it, and goes on working."""
    check = "from setuptools.config.pyprojecttoml import read_configuration; read_configuration('pyproject.toml')"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_addresses_are_the_citations_and_none_is_published_that_leads_nowhere() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    urls = dict(re.findall(r'^(\w+) = "(https://[^"]+)"$', text.split("[project.urls]")[1].split("\n[")[0], flags=re.M))
    assert set(urls) == {"Documentation", "Source", "Changelog", "Issues"}
    cited = dict(re.findall(r"^(url|repository-code): (\S+)$", (ROOT / "CITATION.cff").read_text(), flags=re.M))
    assert cited == {"url": urls["Documentation"], "repository-code": urls["Source"]}
    assert all(urls[name].startswith(urls["Source"]) for name in ("Changelog", "Issues"))
    (guard,) = re.findall(r'run: "(! grep .*)"', (ROOT / ".github/workflows/release.yml").read_text())
    guard = guard.replace("\\\\", "\\")  # as YAML reads it
    held = subprocess.run(["bash", "-c", guard], cwd=ROOT, capture_output=True).returncode
    assert (held != 0) == any(".example/" in url for url in urls.values())


def test_the_docker_build_gets_what_it_copies() -> None:
    """.dockerignore lets through what the wheel is made of, and nothing else."""
    lines = (ROOT / ".dockerignore").read_text().split()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    assert lines[0] == "*"
    assert all((ROOT / name).exists() for name in allowed)
    assert {
        "LICENSE",
        "README.md",
        "pyproject.toml",
        "constraints.txt",
        "toolkit",
        "models",
        "targets",
        "quantize",
    } == allowed
    stages = re.findall(r"^FROM (\S+) AS (\w+)$", (ROOT / "Dockerfile").read_text(), flags=re.M)
    assert [name for _, name in stages] == ["wheel", "run", "build"]


def docker() -> bool:
    return (
        shutil.which("docker") is not None and subprocess.run(["docker", "info"], capture_output=True).returncode == 0
    )


@pytest.mark.slow
@pytest.mark.skipif(not docker(), reason="no docker daemon here")
def test_the_image_runs() -> None:
    subprocess.run(["docker", "build", "-q", "--target", "run", "-t", "inception-deploy-test", ROOT], check=True)
    said = subprocess.run(
        ["docker", "run", "--rm", "inception-deploy-test", "--version"], capture_output=True, text=True
    )
    assert said.stdout == f"inception-deploy {idp.__version__}\n"


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source archive, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "tests", "*.egg-info", "__pycache__"))
    hook = "from setuptools import build_meta as b; import sys; print(getattr(b, sys.argv[1])(sys.argv[2]))"
    made = []
    for kind in ("build_sdist", "build_wheel"):
        where = folder / "unpacked" if made else source
        if made:
            with tarfile.open(made[0]) as archive:
                archive.extractall(where, filter="data")
            (where,) = where.iterdir()
        done = subprocess.run([sys.executable, "-c", hook, kind, folder], cwd=where, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        made.append(folder / done.stdout.splitlines()[-1])
    return made[0], made[1]


@pytest.mark.slow
def test_the_wheel_of_the_source_archive_holds_every_file(archives: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(archives[1]) as wheel:
        names = set(wheel.namelist())
        licence = wheel.read("inception_deploy/bundles/data/LICENSE")
    assert licence == (ROOT / "LICENSE").read_bytes()
    packages = {"toolkit": "", "models": "models/", "targets": "targets/", "quantize": "quantize/"}
    for folder, package in packages.items():
        files = [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        missing = {f"inception_deploy/{package}{path.relative_to(ROOT / folder)}" for path in files} - names
        assert not missing, sorted(missing)
