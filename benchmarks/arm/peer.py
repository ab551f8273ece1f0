"""Runs a network in onnxruntime on one thread, with random inputs: what `count.py --peer` lets an emulated Python do.

    python peer.py model.onnx 3

It needs nothing of this package, which is not installed there.
"""

import sys

import numpy as np
import onnxruntime


def main(model: str, times: int) -> None:
    """`times` inferences."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feeds = {
        given.name: np.random.default_rng(0).standard_normal(given.shape).astype(np.float32)
        for given in session.get_inputs()
    }
    for _ in range(times):
        session.run(None, feeds)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
