"""VTA's configuration: what follows from it, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inception_deploy.errors import DeployError
from inception_deploy.kernels.vta import config


def test_the_default_is_upstreams() -> None:
    made = config.Config()
    assert (made.batch, made.block, made.macs_per_step) == (1, 16, 256)
    assert (made.uop_bytes, made.inp_bytes, made.wgt_bytes, made.acc_bytes) == (4, 16, 256, 64)
    assert (made.uop_depth, made.inp_depth, made.wgt_depth, made.acc_depth) == (8192, 2048, 1024, 2048)


def test_it_comes_back_from_its_document(tmp_path: Path) -> None:
    made = config.Config(log_batch=1, log_block=5, log_wgt_buffer=20, target="pynq")
    (tmp_path / "vta.json").write_text(json.dumps(made.document()))
    assert config.load(tmp_path / "vta.json") == made


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"LOG_BLOCK": 2}, r"LOG_BLOCK of the VTA configuration is 2; allowed: 3 to 6"),
        ({"LOG_BLOCK": "4"}, r"LOG_BLOCK of the VTA configuration is '4'"),
        ({"LOG_BLOCK": True}, r"LOG_BLOCK of the VTA configuration is True"),
        ({"LOG_INP_WIDTH": 4}, r"LOG_INP_WIDTH of the VTA configuration is 4; allowed: 3"),
        (
            {"LOG_WGT_BUFF_SIZE": 8},
            r"LOG_WGT_BUFF_SIZE of the VTA configuration holds 1 elements of 256 bytes; allowed: two",
        ),
        ({"LOG_INP_BUFF_SIZE": 21}, r"LOG_INP_BUFF_SIZE of the VTA configuration holds 131072 elements"),
        ({"LOG_ACC_BUFF_SIZE": 18}, r"needs 33 bits in a micro-operation; allowed: 32"),
        (
            {"LOG_UOP_BUFF_SIZE": 16},
            r"LOG_UOP_BUFF_SIZE of the VTA configuration needs 65 bits in GEMM and ALU's bounds",
        ),
        ({"HW_VER": "0.0.1"}, r"HW_VER of .* is '0.0.1'; allowed: 0.0.2"),
        ({"LOG_BATCH": None}, r"LOG_BATCH of the VTA configuration is None"),
    ],
)
def test_what_is_impossible_is_refused_by_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DeployError, match=message):
        config.parse({**config.Config().document(), **changes})


def test_a_missing_field_is_named() -> None:
    document = config.Config().document()
    del document["LOG_ACC_WIDTH"]
    with pytest.raises(DeployError, match="the VTA configuration lacks LOG_ACC_WIDTH"):
        config.parse(document)


@pytest.mark.parametrize(
    ("content", "message"), [("[1]", "is no JSON object"), ("{", "is no JSON"), (None, "cannot be read")]
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "vta.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DeployError, match=message):
        config.load(path)
