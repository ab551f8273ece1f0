"""What bundles are compiled for. One table row a kind; a kind's module is imported when it is asked for."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inception_deploy import front
from inception_deploy.errors import DeployError, UsageError, nearest

if TYPE_CHECKING:
    from .base import Target

front(__name__)

KINDS: dict[str, str] = {
    "cpu": "cpu",
    "arm": "cpu",
    "cuda": "cuda",
    "vta": "vta_target",
}
"""Kind (what stands before the colon) to the module that has `parse(kind, suffix) -> Target` and `names(kind) ->
[str]`.
"""


def _module(kind: str) -> Any:
    return importlib.import_module(f".{KINDS[kind]}", __name__)


def names() -> list[str]:
    """Every target that can be written, in the table's order."""
    return [name for kind in KINDS for name in _module(kind).names(kind)]


def boards() -> list[str]:
    """Names of boards, servers and cards that `parse` takes for the target of their cores."""
    from inception_deploy.kernels.isa import ISAS

    return [*(board for isa in ISAS for board in isa.boards), *_module("cuda").cards("cuda")]


def parse(text: str) -> Target:
    """The target that `text` names: a kind, `kind:variant`, an ARM core, or one of `boards`; of a VTA, ``@FILE.json``
    behind it is its configuration.

    Raises:
        UsageError: (kind ``target``) there is no such target; names the nearest.
        DeployError: (kind ``target``) `cpu` on a machine that no kernels are made for; (kind ``vta``) the file is no
            configuration, or an impossible one.
    """
    from inception_deploy.kernels.isa import named, stand_in

    name, at, file = text.strip().partition("@")
    wanted = name.lower()
    if core := named(wanted.removeprefix("arm:")):
        wanted = f"arm:{core.name}"
    elif stand_in(wanted) or wanted.startswith(("cortex-", "neoverse-", "apple-")):
        wanted = f"arm:{wanted}"
    kind, colon, suffix = wanted.partition(":")
    if kind not in KINDS or (colon and not suffix):
        allowed = [*names(), *boards()]
        near = nearest(text, allowed)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise UsageError(f"there is no target '{text}'{hint}", kind="target", got=text, allowed=allowed)
    target: Target = _module(kind).parse(kind, suffix)
    return target.configured(text.strip(), Path(file)) if at else target


def described(details: Mapping[str, Any]) -> Target:
    """The target that gave a manifest its `target_details` (`Target.describe`): the same one on every machine.

    Raises:
        DeployError: (kind ``bundle``) no target of this version is described so.
    """
    try:
        return parse(f"{details['kind']}:{details['variant']}")
    except (KeyError, UsageError) as error:
        message = "the bundle is for a target that this version does not know"
        raise DeployError(message, kind="bundle", got=dict(details), allowed=names()) from error


def listing() -> list[dict[str, Any]]:
    """The document of ``targets``: for each target, whether it can be built and run here, and why not.

    Keys: ``name``, ``needs`` (text), ``builds``, ``runs`` (bool) and ``reason`` (text or None).
    """
    rows: list[dict[str, Any]] = []
    for name in names():
        try:
            target = parse(name)
        except DeployError as error:
            rows.append({"name": name, "needs": "", "builds": False, "runs": False, "reason": error.message})
            continue
        unbuildable, unrunnable = target.unbuildable(), target.missing()
        reason = "; ".join(dict.fromkeys(r for r in (unbuildable, unrunnable) if r)) or None
        rows.append(
            {
                "name": name,
                "needs": target.needs(),
                "builds": unbuildable is None,
                "runs": unrunnable is None,
                "reason": reason,
            }
        )
    return rows


def lacking_packages(*packages: str) -> str | None:
    """Why a target that needs these Python packages cannot be built, or None."""
    absent = [p for p in packages if importlib.util.find_spec(p) is None]
    return f"not installed: {', '.join(absent)}" if absent else None
