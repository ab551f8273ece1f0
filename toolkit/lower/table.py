"""Every ONNX operator that has a handler; all others take TVM's default."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from ..kernels.spec import WindowOp
from . import quantized
from .operators import elementwise, layout, linear, pool, written
from .operators.common import attributes, identity
from .operators.elementwise import INF
from .operators.resize import resize
from .reader import Reader

OPS: dict[str, Callable[[Reader, onnx.NodeProto], None]] = {
    "Abs": elementwise.simple("abs"),
    "Add": elementwise.binary("add"),
    "AveragePool": pool.pool(WindowOp.AVERAGE),
    "Clip": elementwise.activation(elementwise.clip_bounds),
    "Col2Im": written.col2im,
    "Concat": layout.concat,
    "Conv": linear.conv,
    "DequantizeLinear": quantized.dequantize,
    "Div": elementwise.binary("div"),
    "Dropout": identity,
    "Elu": elementwise.unary("elu", lambda _r, n: (attributes(n).get("alpha", 1.0),)),
    "Erf": elementwise.simple("erf"),
    "Exp": elementwise.simple("exp"),
    "Flatten": layout.view,
    "Gather": layout.gather,
    "Gelu": elementwise.gelu,
    "Gemm": linear.gemm,
    "GlobalAveragePool": pool.global_average,
    "GlobalMaxPool": pool.global_max,
    "HardSigmoid": elementwise.unary(
        "hard_sigmoid", lambda _r, n: (attributes(n).get("alpha", 0.2), attributes(n).get("beta", 0.5))
    ),
    "HardSwish": elementwise.simple("hard_swish"),
    "Identity": identity,
    "LRN": written.lrn,
    "LeakyRelu": elementwise.unary("leaky_relu", lambda _r, n: (attributes(n).get("alpha", 0.01),)),
    "Log": elementwise.simple("log"),
    "MatMul": linear.matmul,
    "Max": elementwise.binary("max"),
    "MaxPool": pool.pool(WindowOp.MAX),
    "Min": elementwise.binary("min"),
    "Mish": elementwise.simple("mish"),
    "Mul": elementwise.binary("mul"),
    "Neg": elementwise.unary("affine", lambda _r, _n: (-1.0, 0.0)),
    "PRelu": elementwise.binary("prelu"),
    "Pow": elementwise.power,
    "QuantizeLinear": quantized.quantize,
    "Reciprocal": elementwise.simple("reciprocal"),
    "ReduceL2": pool.reduce_map(pool.global_l2),
    "ReduceMax": pool.reduce_map(pool.global_max),
    "ReduceMean": pool.reduce_map(pool.global_average),
    "ReduceSum": pool.reduce_map(pool.global_sum),
    "Relu": elementwise.activation(lambda _r, _n: (0.0, INF)),
    "Reshape": layout.view,
    "Resize": resize,
    "Selu": elementwise.unary(
        "selu", lambda _r, n: (attributes(n).get("alpha", 1.6732632), attributes(n).get("gamma", 1.0507010))
    ),
    "Shape": layout.shape_of,
    "Sigmoid": elementwise.simple("sigmoid"),
    "Slice": layout.slice_,
    "Softmax": elementwise.softmax,
    "Softplus": elementwise.simple("softplus"),
    "Softsign": elementwise.simple("softsign"),
    "Split": layout.split,
    "Sqrt": elementwise.simple("sqrt"),
    "Squeeze": layout.view,
    "Sub": elementwise.binary("sub"),
    "Sum": elementwise.binary("add"),
    "Tanh": elementwise.simple("tanh"),
    "TopK": written.topk,
    "Transpose": layout.transpose,
    "Unsqueeze": layout.view,
}
