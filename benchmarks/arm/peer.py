"""Runs a network in a peer, on one thread, with random inputs: what the emulated Python of `peers.py` executes.

    python peer.py onnxruntime model.onnx 3
    python peer.py ncnn model.param 3

It needs nothing of this package, which is not installed there.
"""

import sys

import numpy as np


def with_onnxruntime(model: str, times: int) -> None:
    """`times` inferences by onnxruntime's CPU provider."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feeds = {
        given.name: np.random.default_rng(0).standard_normal(given.shape).astype(np.float32)
        for given in session.get_inputs()
    }
    for _ in range(times):
        session.run(None, feeds)


def with_ncnn(model: str, times: int) -> None:
    """`times` inferences by ncnn, whose file says the input's shape nowhere: it is beside the file, in `.shape`."""
    import ncnn

    with open(model.removesuffix(".param") + ".shape") as file:
        shape = [int(size) for size in file.read().split()]
    net = ncnn.Net()
    net.opt.num_threads = 1
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    net.load_param(model)
    net.load_model(model.removesuffix(".param") + ".bin")
    pixels = ncnn.Mat(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    for _ in range(times):
        extractor = net.create_extractor()
        extractor.input(net.input_names()[0], pixels)
        extractor.extract(net.output_names()[0])


if __name__ == "__main__":
    {"onnxruntime": with_onnxruntime, "ncnn": with_ncnn}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
