"""Trials on other machines: devices that run TVM's RPC server and are known to TVM's RPC tracker.

python -m tvm.exec.rpc_tracker --port 9190                               # somewhere that all can reach
python -m tvm.exec.rpc_server --tracker HOST:9190 --key pi4              # on every device
"""

from __future__ import annotations

import socket
import struct
from functools import partial
from typing import Any

from ..errors import DeployError
from .measure import TIMEOUT_S, Runners, no_arguments, time_there

CONNECT_S = 5.0
"""How long a tracker may take to answer."""


def servers(host: str, port: int, key: str) -> int:
    """How many devices a tracker knows by a key.

    Raises:
        DeployError: ``tracker``: nothing answers there, something else does, or it knows none by that key.
    """
    where = f"{host}:{port}"
    keys = _keys(host, port, where)
    count = keys.count(key)
    if not count:
        known = sorted(set(keys))
        listed = f"it has {', '.join(known)}" if known else "it has none at all"
        raise DeployError(
            f"the tracker at {where} has no device with the key '{key}'; {listed}",
            kind="tracker", got=key, allowed=known,
        )  # fmt: skip
    return count


def _keys(host: str, port: int, where: str) -> list[str]:
    """The keys of all devices that a tracker knows, one a device."""
    from tvm.rpc import base

    try:
        with socket.create_connection((host, port), CONNECT_S) as connection:
            connection.sendall(struct.pack("<i", base.RPC_TRACKER_MAGIC))
            if struct.unpack("<i", base.recvall(connection, 4))[0] != base.RPC_TRACKER_MAGIC:
                raise ValueError("something else answers")
            base.sendjson(connection, [base.TrackerCode.SUMMARY])
            code, summary = base.recvjson(connection)
            if code != base.TrackerCode.SUCCESS:
                raise ValueError(f"it answers with code {code}")
            return [str(server["key"]).removeprefix("server:") for server in summary["server_info"]]
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        reason = str(error) or type(error).__name__
        raise DeployError(
            f"no RPC tracker of TVM answers at {where} ({reason})",
            kind="tracker", got=where, allowed="HOST:PORT of python -m tvm.exec.rpc_tracker",
        ) from error  # fmt: skip


def remote_runners(host: str, port: int, key: str, threads: int, devices: int) -> Runners:
    """On a tracker's devices, a trial on each at a time."""

    def make(config: Any) -> Any:
        from tvm.s_tir.meta_schedule.runner import RPCConfig, RPCRunner

        return RPCRunner(
            rpc_config=RPCConfig(host, port, key, session_timeout_sec=TIMEOUT_S),
            evaluator_config=config,
            f_alloc_argument=no_arguments,
            f_run_evaluator=partial(time_there, threads),
            max_workers=devices,
        )

    return Runners(make)
