"""Networks that users bring: exported, optimised, lowered, compiled, and equal to onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest

from inception_deploy.verify import bound

torch = pytest.importorskip("torch")
nn = torch.nn
F = nn.functional


def conv(channels, out, size=3, stride=1, groups=1, act=nn.ReLU):
    layers = [nn.Conv2d(channels, out, size, stride, size // 2, groups=groups, bias=False), nn.BatchNorm2d(out)]
    return nn.Sequential(*layers, *([act()] if act else []))


class Fire(nn.Module):
    def __init__(self, channels, squeeze, expand):
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeeze, 1)
        self.one, self.three = nn.Conv2d(squeeze, expand, 1), nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x):
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.one(x)), F.relu(self.three(x))], 1)


def squeezenet():
    pool = nn.MaxPool2d(3, 2, ceil_mode=True)
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, 2), nn.ReLU(), pool, Fire(24, 6, 20), Fire(40, 6, 20), pool, Fire(40, 9, 25),
        nn.Dropout(), nn.Conv2d(50, 10, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


class DenseBlock(nn.Module):
    def __init__(self, channels, growth, layers):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(channels + i * growth),
                nn.ReLU(),
                nn.Conv2d(channels + i * growth, 4 * growth, 1, bias=False),
                nn.BatchNorm2d(4 * growth),
                nn.ReLU(),
                nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
            )
            for i in range(layers)
        )

    def forward(self, x):
        features = [x]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return torch.cat(features, 1)


def densenet():
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, 2, 1),
        DenseBlock(12, 8, 3),
        nn.BatchNorm2d(36),
        nn.ReLU(),
        nn.Conv2d(36, 18, 1),
        nn.AvgPool2d(2),
        DenseBlock(18, 8, 2),
        nn.BatchNorm2d(34),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(34, 10),
    )


class Shuffle(nn.Module):
    """ShuffleNet v2's unit."""

    def __init__(self, channels):
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            conv(half, half, 1), conv(half, half, 3, groups=half, act=None), conv(half, half, 1)
        )

    def forward(self, x):
        left, right = x.chunk(2, 1)
        x = torch.cat([left, self.branch(right)], 1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def shufflenet():
    return nn.Sequential(
        conv(3, 24, 3, 2),
        Shuffle(24),
        Shuffle(24),
        conv(24, 64, 1),
        Shuffle(64),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


class SqueezeExcite(nn.Module):
    def __init__(self, channels, gate):
        super().__init__()
        self.down, self.up, self.gate = nn.Conv2d(channels, 8, 1), nn.Conv2d(8, channels, 1), gate

    def forward(self, x):
        return x * self.gate(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))


class Inverted(nn.Module):
    """MobileNet v2, v3 and EfficientNet's block."""

    def __init__(self, channels, wide, stride, act, gate=None):
        super().__init__()
        self.add = stride == 1
        excite = [SqueezeExcite(wide, gate)] if gate else []
        self.body = nn.Sequential(
            conv(channels, wide, 1, act=act),
            conv(wide, wide, 3, stride, groups=wide, act=act),
            *excite,
            conv(wide, channels, 1, act=None),
        )

    def forward(self, x):
        return x + self.body(x) if self.add else self.body(x)


def inverted(act, gate=None):
    return nn.Sequential(
        conv(3, 20, 3, 2, act=act),
        Inverted(20, 60, 1, act, gate),
        Inverted(20, 50, 2, act, gate),
        Inverted(20, 64, 1, act, gate),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(20, 24),
        act(),
        nn.Linear(24, 10),
    )


class UNet(nn.Module):
    def __init__(self, transposed):
        super().__init__()
        self.down1, self.down2 = conv(3, 12), conv(12, 24)
        self.up = (
            nn.ConvTranspose2d(24, 12, 2, 2)
            if transposed
            else nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(24, 12, 1))
        )
        self.last = nn.Sequential(conv(24, 12), nn.Conv2d(12, 2, 1))

    def forward(self, x):
        one = self.down1(x)
        two = self.down2(F.max_pool2d(one, 2))
        return self.last(torch.cat([one, self.up(two)], 1))


class Attention(nn.Module):
    """A ViT block."""

    def __init__(self, width, heads):
        super().__init__()
        self.norm, self.norm2, self.heads = nn.LayerNorm(width), nn.LayerNorm(width), heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):
        n, t, c = x.shape
        q, k, v = self.qkv(self.norm(x)).view(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        mixed = (q @ k.transpose(-1, -2) / (c // self.heads) ** 0.5).softmax(-1) @ v
        x = x + self.out(mixed.transpose(1, 2).reshape(n, t, c))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches, self.block, self.head = nn.Conv2d(3, 24, 8, 8), Attention(24, 3), nn.Linear(24, 10)
        self.token, self.position = nn.Parameter(torch.randn(1, 1, 24)), nn.Parameter(torch.randn(1, 17, 24))

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
        return self.head(self.block(x)[:, 0])


class ConvNeXt(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.deep, self.norm = (
            nn.Conv2d(3, 20, 4, 4),
            nn.Conv2d(20, 20, 7, padding=3, groups=20),
            nn.LayerNorm(20),
        )
        self.up, self.down, self.scale = nn.Linear(20, 80), nn.Linear(80, 20), nn.Parameter(torch.rand(20))

    def forward(self, x):
        x = self.stem(x)
        y = self.norm(self.deep(x).permute(0, 2, 3, 1))
        y = self.scale * self.down(F.gelu(self.up(y)))
        return (x + y.permute(0, 3, 1, 2)).mean((2, 3))


class Old(nn.Module):
    """LRN, PReLU, grouped convolutions, an unaligned flatten, two outputs' worth of arithmetic: an AlexNet of the wilder kind."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = (
            nn.Conv2d(3, 20, 5, 2),
            nn.Conv2d(20, 30, 3, groups=5),
            nn.Conv2d(30, 30, 3, padding=2, dilation=2),
        )
        self.norm, self.slope, self.pool = nn.LocalResponseNorm(5), nn.PReLU(30), nn.MaxPool2d(3, 2)
        self.last = nn.Linear(30 * 12, 7)

    def forward(self, x):
        x = self.pool(self.norm(F.relu6(self.one(x))))
        x = F.pad(self.slope(self.two(x)), (0, 1, 1, 0))
        x = F.avg_pool2d(F.elu(self.three(x)) - 0.5, 2, 1, ceil_mode=True, count_include_pad=False)[:, :, 1:]
        return F.softmax(self.last(x.flatten(1)), 1)


NETWORKS = {
    "squeezenet": squeezenet,
    "densenet": densenet,
    "shufflenet": shufflenet,
    "mobilenet v2": lambda: inverted(nn.ReLU6),
    "mobilenet v3": lambda: inverted(nn.Hardswish, nn.Hardsigmoid()),
    "efficientnet": lambda: inverted(nn.SiLU, nn.Sigmoid()),
    "u-net": lambda: UNet(transposed=True),
    "u-net, resized": lambda: UNet(transposed=False),
    "vit": ViT,
    "convnext": ConvNeXt,
    "old": Old,
}

OURS = {"squeezenet", "densenet", "shufflenet", "mobilenet v2", "mobilenet v3", "efficientnet"}
"""Those that need nothing but kernels of ours."""


def randomised(module):
    """With batch statistics that are not 0 and 1."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.2, 0.2)
            layer.running_var.uniform_(0.5, 1.5)
    return module.eval()


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_user_network(compiled, target, name):
    from inception_deploy.graph.driver import optimise
    from inception_deploy.sources.capture import to_onnx

    batch = 1 if target.isa.name == "avx2" else 2
    torch.manual_seed(0)
    module = randomised(NETWORKS[name]())
    model, _ = optimise(to_onnx(module, (batch, 3, 32, 32)), verify=False)
    made = compiled(model)
    made.check(
        np.random.default_rng(1).standard_normal((batch, 3, 32, 32)).astype(np.float32), tolerance=bound("kernels")
    )
    refused = {refusal.op for refusal in made.plan.refusals}
    assert refused == set() if name in OURS else refused
