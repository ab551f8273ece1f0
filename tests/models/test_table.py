"""The zoo as data: names, aliases, errors, and that none of it loads torch."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from inception_deploy import models
from inception_deploy.errors import UsageError


def test_every_network_of_the_mission_is_there() -> None:
    expected = """lenet5 alexnet vgg11 vgg13 vgg16 vgg19 resnet18 resnet34 resnet50 resnet101 resnet152 plain18 plain34 googlenet
    googlenet-textbook inception_v2 inception_v3 inception_v4 inception_resnet_v1 inception_resnet_v2 resnext50_32x4d resnext101_32x4d
    resnext101_32x8d xception mobilenet_v1"""
    assert set(models.names()) == set(expected.split())


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("irv2", "inception_resnet_v2"),
        ("IRv1", "inception_resnet_v1"),
        ("InceptionV4", "inception_v4"),
        ("inception-v4", "inception_v4"),
        ("Inception-ResNet-v2", "inception_resnet_v2"),
        ("ResNet-50", "resnet50"),
        ("GoogLeNet", "googlenet"),
        ("mobilenet", "mobilenet_v1"),
        ("resnext50", "resnext50_32x4d"),
        ("LeNet-5", "lenet5"),
    ],
)
def test_names_as_people_type_them(text: str, name: str) -> None:
    assert models.resolve(text) == name
    assert models.spec(text).name == name


def test_no_two_networks_share_a_spelling() -> None:
    for spec in models.specs():
        for spelling in (spec.name, *spec.aliases):
            assert models.resolve(spelling) == spec.name
            assert models.resolve(spelling.upper()) == spec.name


def test_an_unknown_name_is_told_its_neighbours() -> None:
    with pytest.raises(UsageError, match=r"there is no model 'inceptoin_v4'; did you mean .*inception_v4") as caught:
        models.resolve("inceptoin_v4")
    assert caught.value.kind == "model"
    assert caught.value.exit_code == 2
    assert caught.value.allowed == models.names()
    with pytest.raises(UsageError, match=r"there is no model 'zzzzzz'$"):
        models.resolve("zzzzzz")


def test_specs_are_plain_data() -> None:
    for spec in models.specs():
        entry = json.loads(json.dumps(spec.as_dict()))
        assert entry["input"] == list(spec.input)
        assert entry["parameters"] > 0
        assert entry["macs"] > 0
        assert spec.preprocessing.crop == spec.input[1:]
        assert len(spec.preprocessing.mean) == len(spec.preprocessing.std) == spec.input[0]
        assert spec.minimum <= min(spec.input[1:])


def test_preprocessing_follows_the_input_size() -> None:
    how = models.spec("resnet50").preprocessing.at(112, 112)
    assert (how.resize, how.crop) == (128, (112, 112))
    assert models.spec("resnet50").preprocessing.at(224, 448).resize == 512, (
        "the short side must cover both sides of the crop"
    )
    grey = models.spec("resnet50").preprocessing.channels(1)
    assert grey.mean == (0.449,)
    assert grey.std == (0.226,)


def test_listing_the_zoo_loads_no_torch() -> None:
    code = (
        "import sys; from inception_deploy import models; models.specs(); models.resolve('irv2'); models.labels();"
        "print([name for name in ('torch', 'numpy', 'safetensors') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_labels_are_imagenets() -> None:
    labels = models.labels()
    assert len(labels) == 1000
    assert (labels[0], labels[281], labels[999]) == ("tench", "tabby", "toilet tissue")
    assert all(label == label.strip() and label for label in labels)
