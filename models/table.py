# ruff: noqa: E501  (one line a network)
"""The zoo: one line a network. `parameters` and `macs` stand here so that listing them needs no torch; a test builds
each and counts.

top1 is as published by the source of the weights (torchvision, timm, TF-slim or the paper), single crop.
"""

from __future__ import annotations

from inception_deploy.runtime.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

from .spec import HALF, ModelSpec, Option

# Which normalisation published weights expect. torchvision's own Inception v3 and GoogLeNet files are the TF ones
# behind a `transform_input` that turns ImageNet's normalisation back into 0.5 / 0.5: fed with 0.5 / 0.5 directly, no
# transform is needed.
_TORCHVISION = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, resize=256, crop=(224, 224))
_SLIM_224 = Preprocessing(HALF, HALF, resize=256, crop=(224, 224))
_SLIM_224_BICUBIC = Preprocessing(HALF, HALF, resize=256, crop=(224, 224), interpolation="bicubic")
_SLIM_299 = Preprocessing(HALF, HALF, resize=342, crop=(299, 299), interpolation="bicubic")
_SLIM_299_WIDE = Preprocessing(HALF, HALF, resize=333, crop=(299, 299), interpolation="bicubic")
_MNIST = Preprocessing((0.1307,), (0.3081,), resize=32, crop=(32, 32))

_RGB224, _RGB299 = (3, 224, 224), (3, 299, 299)
_BOTH, _TV, _TIMM = "torchvision, timm", "torchvision", "timm"

_DROPOUT = Option("dropout", 0.0, "probability of dropping a feature before the classifier, while training")
_AUX = Option("aux", False, "add the auxiliary classifier(s) that train() uses; eval() and the export never run them")
_HEADS = (Option("dropout", 0.5, "probability of dropping a feature in the fully connected layers, while training"),)
_V2 = (
    Option(
        "stem",
        "separable",
        "first 7x7: depthwise-separable as in TF-slim, or plain as in the paper",
        ("separable", "plain"),
    ),
    _DROPOUT,
)
_V3 = (_AUX, _DROPOUT)
_V4 = (Option("blocks", (4, 7, 3), "how many Inception-A, -B and -C blocks"), _DROPOUT)
_SCALES = Option("scales", (0.17, 0.10, 0.20), "residual scale of the block35, block17 and block8 stages")
_IR1 = (
    Option("blocks", (5, 10, 5), "how many block35, block17 and block8"),
    _SCALES,
    Option(
        "final_block8", False, "one block8 more, unscaled and without ReLU (the facenet form: 24,357,096 parameters)"
    ),
    _DROPOUT,
)
_IR2 = (
    Option("blocks", (10, 20, 10), "how many block35, block17 and block8 (the last block8 is unscaled, without ReLU)"),
    _SCALES,
    _DROPOUT,
)
_RES = (Option("blocks", (), "how many blocks in each of the four stages; empty: as published"), _DROPOUT)
_XCEPTION = (Option("blocks", 8, "how many blocks in the middle flow"), _DROPOUT)
_MOBILE = (
    Option("alpha", 1.0, "width multiplier of the paper; multiplies with width"),
    Option("rho", 1.0, "resolution multiplier of the paper: the default input size is 224 * rho"),
    Option("act", "relu6", "activation", ("relu6", "relu")),
    _DROPOUT,
)
_LENET = (
    Option(
        "form",
        "full",
        "full: C3 sees all of S2; 1998: the paper's C3 table, trained subsampling and fixed output codes",
        ("full", "1998"),
    ),
)

# fmt: off
TABLE: tuple[ModelSpec, ...] = (
    #         name                   family                 aliases                                          input         min parameters   MACs            preprocessing      top-1  weights options
    ModelSpec("lenet5",              "lenet",               ("lenet", "lenet-5"),                            (1, 32, 32),  16, 61_706,      416_520,        _MNIST,            None,  num_classes=10, options=_LENET),
    ModelSpec("alexnet",             "alexnet",             (),                                              _RGB224,      63, 61_100_840,  714_188_480,    _TORCHVISION,      56.52, _TV,    _HEADS),
    ModelSpec("vgg11",               "vgg",                 ("vgg-11",),                                     _RGB224,      32, 132_863_336, 7_609_090_048,  _TORCHVISION,      69.02, _BOTH,  _HEADS),
    ModelSpec("vgg13",               "vgg",                 ("vgg-13",),                                     _RGB224,      32, 133_047_848, 11_308_466_176, _TORCHVISION,      69.93, _BOTH,  _HEADS),
    ModelSpec("vgg16",               "vgg",                 ("vgg-16",),                                     _RGB224,      32, 138_357_544, 15_470_264_320, _TORCHVISION,      71.59, _BOTH,  _HEADS),
    ModelSpec("vgg19",               "vgg",                 ("vgg-19",),                                     _RGB224,      32, 143_667_240, 19_632_062_464, _TORCHVISION,      72.38, _BOTH,  _HEADS),
    ModelSpec("resnet18",            "resnet",              ("resnet-18",),                                  _RGB224,      32, 11_689_512,  1_814_073_344,  _TORCHVISION,      69.76, _BOTH,  _RES),
    ModelSpec("resnet34",            "resnet",              ("resnet-34",),                                  _RGB224,      32, 21_797_672,  3_663_761_408,  _TORCHVISION,      73.31, _BOTH,  _RES),
    ModelSpec("resnet50",            "resnet",              ("resnet-50", "resnet"),                         _RGB224,      32, 25_557_032,  4_089_184_256,  _TORCHVISION,      76.13, _BOTH,  _RES),
    ModelSpec("resnet101",           "resnet",              ("resnet-101",),                                 _RGB224,      32, 44_549_160,  7_801_405_440,  _TORCHVISION,      77.37, _BOTH,  _RES),
    ModelSpec("resnet152",           "resnet",              ("resnet-152",),                                 _RGB224,      32, 60_192_808,  11_513_626_624, _TORCHVISION,      78.31, _BOTH,  _RES),
    ModelSpec("plain18",             "resnet",              ("plain-18",),                                   _RGB224,      32, 11_515_688,  1_794_805_760,  _TORCHVISION,      None,  options=_RES),
    ModelSpec("plain34",             "resnet",              ("plain-34",),                                   _RGB224,      32, 21_623_848,  3_644_493_824,  _TORCHVISION,      None,  options=_RES),
    ModelSpec("googlenet",           "googlenet",           ("inception_v1", "inceptionv1"),                 _RGB224,      32, 6_624_904,   1_498_376_192,  _SLIM_224,         69.78, _TV,    _V3),
    ModelSpec("googlenet-textbook",  "googlenet",           ("googlenet_textbook",),                         _RGB224,      28, 6_998_552,   1_582_671_872,  _SLIM_224,         None,  options=_V3),
    ModelSpec("inception_v2",        "inception_v2",        ("inceptionv2", "bn-inception"),                 _RGB224,      32, 11_188_288,  1_934_857_216,  _SLIM_224,         73.9,  options=_V2),
    ModelSpec("inception_v3",        "inception_v3",        ("inceptionv3", "iv3"),                          _RGB299,      75, 23_834_568,  5_713_216_096,  _SLIM_299,         77.29, _BOTH,  _V3),
    ModelSpec("inception_v4",        "inception_v4",        ("inceptionv4", "iv4"),                          _RGB299,      75, 42_679_816,  12_253_974_624, _SLIM_299,         80.14, _TIMM,  _V4),
    ModelSpec("inception_resnet_v1", "inception_resnet_v1", ("irv1", "inceptionresnetv1"),                   _RGB299,      75, 22_756_328,  6_206_361_696,  _SLIM_299,         78.7,  options=_IR1),
    ModelSpec("inception_resnet_v2", "inception_resnet_v2", ("irv2", "inceptionresnetv2"),                   _RGB299,      75, 55_843_464,  13_155_794_016, _SLIM_299_WIDE,    80.43, _TIMM,  _IR2),
    ModelSpec("resnext50_32x4d",     "resnet",              ("resnext50", "resnext-50"),                     _RGB224,      32, 25_028_904,  4_230_479_872,  _TORCHVISION,      77.62, _BOTH,  _RES),
    ModelSpec("resnext101_32x4d",    "resnet",              ("resnext101", "resnext-101"),                   _RGB224,      32, 44_177_704,  7_969_996_800,  _TORCHVISION,      None,  _TIMM,  _RES),
    ModelSpec("resnext101_32x8d",    "resnet",              (),                                              _RGB224,      32, 88_791_336,  16_414_015_488, _TORCHVISION,      79.31, _BOTH,  _RES),
    ModelSpec("xception",            "xception",            ("legacy_xception",),                            _RGB299,      71, 22_855_952,  8_357_403_496,  _SLIM_299_WIDE,    79.06, _TIMM,  _XCEPTION),
    ModelSpec("mobilenet_v1",        "mobilenet_v1",        ("mobilenet", "mobilenetv1", "mobilenetv1_100"), _RGB224,      32, 4_231_976,   568_740_352,    _SLIM_224_BICUBIC, 70.9,  _TIMM,  _MOBILE),
)
# fmt: on
