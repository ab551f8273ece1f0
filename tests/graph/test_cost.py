"""Costs that can be counted by hand."""

from __future__ import annotations

from inception_deploy.graph.cost import Branch, cost, joins


def test_multiplications_of_each_linear_operator(build) -> None:
    text = """(float[2,8,9,9] x, float[4,4,3,3] w, float[4] b, float[4,5,2,2] t, float[245,10] g, float[10,7] m)
        => (float[n,c] y)
        { a = Conv<group=2>(x, w, b)  d = ConvTranspose(a, t)  p = AveragePool<kernel_shape=[2,2]>(d)
          f = Flatten(p)  h = Gemm(f, g)  y = MatMul(h, m) }"""
    rows = {node.op_type: node for node in cost(build(text)).nodes}
    assert rows["Conv"].macs == 2 * 4 * 7 * 7 * (4 * 3 * 3)
    assert rows["Conv"].parameters == 4 * 4 * 3 * 3 + 4
    assert rows["ConvTranspose"].macs == 2 * 4 * 7 * 7 * (5 * 2 * 2)
    assert rows["AveragePool"].other_ops == 2 * 5 * 7 * 7 * 4
    assert rows["Flatten"].other_ops == 0
    assert rows["Gemm"].macs == 2 * 245 * 10
    assert rows["MatMul"].macs == 2 * 10 * 7
    assert rows["MatMul"].output_shape == (2, 7)
    assert rows["MatMul"].output_bytes == 2 * 7 * 4


def test_a_shared_weight_is_counted_once_and_a_symbolic_batch_as_one(build) -> None:
    text = "(float[batch,8,9,9] x, float[8,8,1,1] w) => (float[n,c,h,w] y) { a = Conv(x, w)  y = Conv(a, w) }"
    found = cost(build(text))
    assert found.parameters == 64
    assert found.macs == 2 * 8 * 81 * 8


def test_the_peak_counts_what_is_alive_together(build) -> None:
    # x (1 unit) stays alive for the Concat; a and b are 1 unit each, y is 2.
    text = """(float[1,8,4,4] x) => (float[n,c,h,w] y)
        { a = Relu(x)  b = Neg(a)  c = Concat<axis=1>(x, b)  y = Abs(c) }"""
    unit = 8 * 4 * 4 * 4
    assert cost(build(text)).peak_bytes == 4 * unit  # x, b and c; or c and y
    chain = "(float[1,8,4,4] x) => (float[n,c,h,w] y) { a = Relu(x)  b = Neg(a)  c = Abs(b)  y = Exp(c) }"
    assert cost(build(chain)).peak_bytes == 2 * unit


def test_joins_and_their_branches(build) -> None:
    text = """(float[1,8,4,4] x, float[8,8,1,1] w) => (float[n,c,h,w] y)
        { s = Relu(x)  a = Conv(s, w)  b = Relu(a)  c = Concat<axis=1>(b, s)
          d = Relu(c)  y = Add(d, c) }"""
    concat, add = joins(build(text))
    assert (concat.op_type, concat.output_shape) == ("Concat", (1, 16, 4, 4))
    assert [branch.source for branch in concat.branches] == ["s", "s"]
    assert [len(branch.nodes) for branch in concat.branches] == [2, 0]
    assert concat.branches[0].macs == 8 * 8 * 16
    assert add.branches == (Branch("c", ("",), 0), Branch("c", (), 0))


def test_adding_a_constant_is_no_join(build) -> None:
    assert joins(build("(float[1,8] x, float[8] b) => (float[n,c] y) { y = Add(x, b) }")) == []
