"""Which class of a network a name means that people gave to pictures: a folder's, or a word in a table."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from ..errors import DeployError
from ..runtime.labels import wnids

RULES = ("label", "wnid", "number", "order")
"""In the order in which they are tried: the network's own label, ImageNet's WordNet number (of a network of 1000
classes), the class's number, the place among the sorted names where there are as many names as classes (torchvision's
ImageFolder).
"""


def numbered(
    names: Iterable[str], labels: Sequence[str], rule: str | None = None, *, where: str = "the data"
) -> tuple[dict[str, int], str]:
    """The number of the class that each name means, and the rule of `RULES` that says so.

    Args:
        names: as they stand at the pictures.
        labels: of the network, one a class.
        rule: the one to use; the first that knows every name where None.
        where: what the names come from, for the error.

    Raises:
        DeployError: (kind ``classes``) no rule knows every name, or a label means two classes.
    """
    found = sorted(set(names))
    reasons = []
    for one in RULES if rule is None else (rule,):
        numbers = _by(one, found, labels)
        if isinstance(numbers, dict):
            return numbers, one
        reasons.append(numbers)
    message = f"{where}: the class names say no class of the network: {'; '.join(reasons)}"
    allowed = f"{len(labels)} classes by label, by number from 0, or one name a class; --labels gives them names"
    raise DeployError(message, kind="classes", got=found[:20], allowed=allowed)


def _by(rule: str, names: Sequence[str], labels: Sequence[str]) -> dict[str, int] | str:
    """The classes by one rule, or why it has none."""
    if rule == "order":
        if len(names) != len(labels):
            return f"there are {len(names)} names for {len(labels)} classes"
        return {name: index for index, name in enumerate(names)}
    if rule == "number":
        wrong = next((n for n in names if not re.fullmatch("[0-9]{1,9}", n) or int(n) >= len(labels)), None)
        return {name: int(name) for name in names} if wrong is None else f"'{wrong}' is no number of a class"
    if rule == "wnid" and len(labels) != len(wnids()):
        return f"a network of {len(labels)} classes is not ImageNet's"
    known = [_plain(label) for label in labels] if rule == "label" else list(wnids())
    wrong = next((name for name in names if _plain(name) not in known), None)
    if wrong is not None:
        return f"'{wrong}' is no {'label' if rule == 'label' else 'WordNet number of ImageNet'}"
    twice = {name for name, count in Counter(known).items() if count > 1}
    if unclear := next((name for name in names if _plain(name) in twice), None):
        return f"'{unclear}' is the label of several classes"
    place = {name: index for index, name in enumerate(known)}
    return {name: place[_plain(name)] for name in names}


def _plain(name: str) -> str:
    """A label as folders may spell it: ``Tabby_cat`` is ``tabby cat``."""
    return name.replace("_", " ").strip().lower()
