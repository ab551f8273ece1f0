"""What a name that people gave to pictures means."""

from __future__ import annotations

import pytest

from inception_deploy.errors import DeployError
from inception_deploy.reports.classes import numbered
from inception_deploy.runtime.labels import imagenet, wnids


@pytest.mark.parametrize(
    ("names", "labels", "numbers", "by"),
    [
        (["dog", "cat"], ["cat", "cow", "dog"], {"cat": 0, "dog": 2}, "label"),
        (["Great_White_Shark"], ["tench", "great white shark"], {"Great_White_Shark": 1}, "label"),
        (["2", "10", "007"], [f"c{index}" for index in range(11)], {"2": 2, "10": 10, "007": 7}, "number"),
        (["b", "a", "c"], ["x", "y", "z"], {"a": 0, "b": 1, "c": 2}, "order"),
        (["n15075141", "n01440764"], imagenet(), {"n01440764": 0, "n15075141": 999}, "wnid"),
    ],
)
def test_the_first_rule_that_knows_every_name(names, labels, numbers, by) -> None:
    assert numbered(names, labels) == (numbers, by)


def test_a_rule_can_be_named() -> None:
    """Folders 0 to 10 are sorted as text by torchvision: 10 comes second."""
    names, labels = [str(index) for index in range(11)], [f"c{index}" for index in range(11)]
    assert numbered(names, labels)[0]["10"] == 10
    assert numbered(names, labels, "order")[0]["10"] == 2


@pytest.mark.parametrize(
    ("names", "labels", "message"),
    [
        (["a", "b"], ["x", "y", "z"], "x: the class names say no class of the network: 'a' is no label; a network of 3 classes is not ImageNet's; 'a' is no number of a class; there are 2 names for 3 classes"),
        (["3"], ["x", "y", "z"], "x: the class names say no class of the network: '3' is no label; a network of 3 classes is not ImageNet's; '3' is no number of a class; there are 1 names for 3 classes"),
        (["crane"], ["crane", "Crane", "x"], "x: the class names say no class of the network: 'crane' is the label of several classes; a network of 3 classes is not ImageNet's; 'crane' is no number of a class; there are 1 names for 3 classes"),
    ],
)  # fmt: skip
def test_names_that_say_nothing(names, labels, message: str) -> None:
    with pytest.raises(DeployError) as caught:
        numbered(names, labels, where="x")
    assert (caught.value.kind, caught.value.message) == ("classes", message)


def test_imagenets_numbers_are_in_the_order_of_its_labels() -> None:
    assert len(set(wnids())) == len(imagenet()) == 1000
    assert list(wnids()) == sorted(wnids())
    known = {"tench": "n01440764", "goldfish": "n01443537", "tabby": "n02123045", "daisy": "n11939491"}
    for label, wnid in known.items():
        (place,) = [index for index, name in enumerate(imagenet()) if name.split(",")[0] in (label, f"{label} cat")]
        assert wnids()[place] == wnid
