"""Two bundles that went the whole way: branches, a concat, a residual and Winograd in fp32; trained digits in int8."""

from __future__ import annotations

from pathlib import Path

import pytest

import inception_deploy as idp
from inception_deploy.reports.page.facts import Facts
from inception_deploy.reports.page.gather import gather
from inception_deploy.runtime import bundle

DATA = Path(__file__).resolve().parents[3] / "examples" / "data"


def facts_of(path: Path, **options) -> Facts:
    with bundle.open(path) as opened:
        return gather(opened, **{"runs": 2, "threads": 2, "against": [], **options})


@pytest.fixture(scope="session")
def branchy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from torch import nn

    class Branchy(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(3)
            self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, stride=2), nn.BatchNorm2d(32), nn.ReLU())
            self.left = nn.Sequential(nn.Conv2d(32, 16, 1), nn.ReLU())
            self.right = nn.Sequential(nn.Conv2d(32, 32, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU())
            self.up = nn.Conv2d(48, 32, 1)
            self.head = nn.Linear(32, 7)

        def forward(self, x):
            x = self.stem(x)
            x = torch.relu(x + self.up(torch.cat([self.left(x), self.right(x)], 1)))
            return self.head(x.mean((2, 3)))

    path = tmp_path_factory.mktemp("branchy") / "bundle"
    idp.export(Branchy().eval(), path, input_size=64)
    return path


@pytest.fixture(scope="session")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "bundle"
    held = DATA / "digits_heldout.npz"
    how = {"precision": "int8", "calibration": held, "images": 32, "max_drop": 5.0, "evaluate": held}
    idp.export(DATA / "digits_lenet.safetensors", path, **how)
    return path


@pytest.fixture(scope="session")
def facts(branchy: Path) -> Facts:
    return facts_of(branchy)


@pytest.fixture(scope="session")
def int8_facts(int8: Path) -> Facts:
    return facts_of(int8)
