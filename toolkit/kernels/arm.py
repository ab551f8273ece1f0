"""What kernels for ARM say in LLVM's own language, because LLVM would not choose it."""

from __future__ import annotations

VMLA = "vmla.f32"
"""Of ARMv7's NEON: adds to vectors of floats their products with one lane of another vector, rounded twice.

LLVM takes it apart into vmul and vadd for Cortex-A9, and where products and sums may be fused, as TVM says; ARMv7
before VFPv4 has no instruction that fuses them. The lane's register has to be one of q0 to q7 (constraint t).
`sideeffect` keeps the order, in which no more vectors are alive than there are registers.
"""


def _by_lane(lane: int) -> str:
    half, word = ("e", "f")[lane // 2], lane % 2
    code, v = f"vmla.f32 $0, $2, ${{3:{half}}}[{word}]", "<4 x float>"
    return f"""define internal {v} @vmla{lane}({v} %sum, {v} %a, {v} %b) alwaysinline {{
  %r = call {v} asm sideeffect "{code}", "=w,0,w,t"({v} %sum, {v} %a, {v} %b)
  ret {v} %r
}}
"""


MULTIPLY = {VMLA: "; ModuleID = 'multiply'\n" + "".join(map(_by_lane, range(4)))}
"""By the name of an instruction: the functions `vmla0` to `vmla3` of it, which are inlined where they are called."""


def _joined(name: str, kind: str, size: int, places: range) -> str:
    v = f"<{size} x {kind}>"
    halves = [*places, *(size + place for place in places)]
    return f"""define internal {v} @{name}({v} %a, {v} %b) alwaysinline {{
  %r = shufflevector {v} %a, {v} %b, <{size} x i32> <{", ".join(f"i32 {place}" for place in halves)}>
  ret {v} %r
}}
"""


HALVES = "; ModuleID = 'halves'\n" + "".join(
    _joined(f"{name}_{dtype}", kind, size, range(start * size // 2, (start + 1) * size // 2))
    for dtype, kind, size in (
        ("int8x16", "i8", 16),
        ("uint16x8", "i16", 8),
        ("int32x4", "i32", 4),
        ("float32x4", "float", 4),
    )
    for start, name in enumerate(("lower", "upper"))
)
"""``lower_int8x16``, ``upper_int8x16`` and the same of other vectors, named as TVM names them: the same halves of two
vectors as one.
"""


def _alternate(name: str, first: int) -> str:
    v, places = "<4 x i32>", ", ".join(f"i32 {place}" for place in range(first, 8, 2))
    return f"""define internal {v} @{name}({v} %a, {v} %b) alwaysinline {{
  %r = shufflevector {v} %a, {v} %b, <4 x i32> <{places}>
  ret {v} %r
}}
"""


WORDS = "; ModuleID = 'words'\n" + _alternate("even", 0) + _alternate("odd", 1)
"""``even`` and ``odd``: every other number of two vectors of int32."""


def _brain(size: int) -> str:
    """Vectors of four floats, side by side, as bfloat16."""
    parts = size // 4
    takes = ", ".join(f"<4 x float> %f{part}" for part in range(parts))
    places = ", ".join(f"i32 {place}" for place in range(size))
    other = "%f1" if parts > 1 else "poison"
    return f"""define internal <{size} x i16> @brain{size}({takes}) alwaysinline {{
  %v = shufflevector <4 x float> %f0, <4 x float> {other}, <{size} x i32> <{places}>
  %x = fptrunc <{size} x float> %v to <{size} x bfloat>
  %r = bitcast <{size} x bfloat> %x to <{size} x i16>
  ret <{size} x i16> %r
}}
"""


BRAIN = (
    """; ModuleID = 'brain'
declare <4 x float> @llvm.aarch64.neon.bfmmla(<4 x float>, <8 x bfloat>, <8 x bfloat>)
define internal <4 x float> @bfmmla(<4 x float> %sum, <8 x i16> %a, <8 x i16> %b) alwaysinline {
  %x = bitcast <8 x i16> %a to <8 x bfloat>
  %y = bitcast <8 x i16> %b to <8 x bfloat>
  %r = call <4 x float> @llvm.aarch64.neon.bfmmla(<4 x float> %sum, <8 x bfloat> %x, <8 x bfloat> %y)
  ret <4 x float> %r
}
"""
    + _brain(4)
    + _brain(8)
)
"""``bfmmla``, which adds the products of two rows of four bfloat16 and two others (`dots.BFMMLA`); ``brain4`` and
``brain8``, which round one and two vectors of four floats to bfloat16 (bfcvtn). TVM has no type for them.
"""


def _bytes(size: int) -> str:
    """Halves of a vector on their own down to four floats; sums of sixteen bits are of eight at least."""

    def picked(start: int, count: int) -> str:
        return f"<{count} x i32> <{', '.join(f'i32 {start + i}' for i in range(count))}>"

    code, narrowed = [], []
    for part in range(0, size, 4):
        n = part // 4
        code += [
            f"%f{n} = shufflevector <{size} x float> %value, <{size} x float> poison, {picked(part, 4)}",
            f"%w{n} = call <4 x i32> @llvm.aarch64.neon.fcvtns.v4i32.v4f32(<4 x float> %f{n})",
            f"%h{n} = call <4 x i16> @llvm.aarch64.neon.sqxtn.v4i16(<4 x i32> %w{n})",
        ]
    for n in range(0, max(1, size // 8)):
        second = "poison" if size == 4 else f"%h{2 * n + 1}"
        code += [
            f"%e{n} = shufflevector <4 x i16> %h{2 * n}, <4 x i16> {second}, {picked(0, 8)}",
            f"%z{n} = call <8 x i16> @llvm.sadd.sat.v8i16(<8 x i16> %e{n}, <8 x i16> %zero)",
            f"%b{n} = call <8 x i8> @llvm.aarch64.neon.sqxtun.v8i8(<8 x i16> %z{n})",
        ]
        narrowed.append(f"%b{n}")
    other = narrowed[1] if size == 16 else "poison"
    code.append(f"%r = shufflevector <8 x i8> %b0, <8 x i8> {other}, {picked(0, size)}")
    body = "\n  ".join([*code, f"ret <{size} x i8> %r"])
    takes = f"<{size} x float> %value, <8 x i16> %zero"
    return f"define internal <{size} x i8> @bytes{size}({takes}) alwaysinline {{\n  {body}\n}}\n"


HIDDEN = """; ModuleID = 'hidden'
define internal i32 @hidden(i32 %index) alwaysinline {
  %r = call i32 asm "", "=r,0"(i32 %index)
  ret i32 %r
}
"""
"""`hidden`, which gives what it takes, so that LLVM does not see what it is: an index that is computed once is used as
it is, with small constants added to it, which a load of ARM's takes. Otherwise LLVM gathers constants from everywhere,
and a subtraction stands before each load.
"""

FCVTNS = "fcvtns"
"""Of AArch64: rounds floats to the nearest integers, ties to even, and stops at the ends of int32."""

NARROW = {
    FCVTNS: """; ModuleID = 'bytes'
declare <4 x i32> @llvm.aarch64.neon.fcvtns.v4i32.v4f32(<4 x float>)
declare <4 x i16> @llvm.aarch64.neon.sqxtn.v4i16(<4 x i32>)
declare <8 x i8> @llvm.aarch64.neon.sqxtun.v8i8(<8 x i16>)
declare <8 x i16> @llvm.sadd.sat.v8i16(<8 x i16>, <8 x i16>)
"""
    + "".join(map(_bytes, (4, 8, 16)))
}
"""By the name of an instruction: functions ``bytes4`` to ``bytes16`` of it, of so many floats rounded to the nearest
integers, plus a zero point (int16 lanes), saturated to bytes.
"""


def sums_of_pairs(second: str) -> str:
    """An LLVM module for bytes on AArch64: `pairs` and `pairs4` add to one and to four vectors of int32 the products
    of a vector of int8 with as many others, two by two (`dots.Dot.run`); `lay0` to `lay3` put four bytes of sixteen
    into all places of a vector, in that order.

    It is assembly because LLVM begins all products of a tile before it adds the first ones up, and has no registers
    for them, and has it in order (`sideeffect`) because it lays all words out first; four vectors at once because an
    in-order core waits for each instruction that reads the one before it.

    Args:
        second: ``smlal2``, which adds to what smull gave, or ``smull2``, whose products are added up on their own.
    """
    return "; ModuleID = 'pairs'\n" + _pairs(1, second) + _pairs(4, second) + "".join(map(_lay, range(4)))


def _pairs(count: int, second: str) -> str:
    name = "pairs" if count == 1 else f"pairs{count}"
    sums, held = range(count), min(count, 2)
    scratch = 2 * held if second == "smull2" else held
    a, first = f"${count + scratch + count}", count + scratch + count + 1
    code: list[str] = []
    for start in range(0, count, held):
        group = range(start, start + held)
        ways = [(n, f"${count + n - start}", f"${count + held + n - start}", f"${first + n}") for n in group]
        code += [f"smull {low}.8h, {a}.8b, {b}.8b" for _, low, _, b in ways]
        if second == "smull2":
            code += [f"smull2 {high}.8h, {a}.16b, {b}.16b" for _, _, high, b in ways]
            code += [f"sadalp ${n}.4s, {low}.8h" for n, low, _, _ in ways]
            code += [f"sadalp ${n}.4s, {high}.8h" for n, _, high, _ in ways]
        else:
            code += [f"smlal2 {low}.8h, {a}.16b, {b}.16b" for _, low, _, b in ways]
            code += [f"sadalp ${n}.4s, {low}.8h" for n, low, _, _ in ways]
    kinds = ", ".join(["<4 x i32>"] * count + ["<8 x i16>"] * scratch)
    limits = ",".join(["=&w"] * (count + scratch) + [str(n) for n in sums] + ["w"] * (count + 1))
    given = ", ".join([f"<4 x i32> %t{n}" for n in sums] + ["<16 x i8> %a"] + [f"<16 x i8> %b{n}" for n in sums])

    def part(whole: str, kind: str, size: int, n: int) -> str:
        places = ", ".join(f"i32 {n * size + i}" for i in range(size))
        vector = f"<{count * size} x {kind}>"
        return f"shufflevector {vector} %{whole}, {vector} poison, <{size} x i32> <{places}>"

    cut = [f"%t{n} = {part('t', 'i32', 4, n)}" for n in sums] + [f"%b{n} = {part('b', 'i8', 16, n)}" for n in sums]
    got = [f"%r{n} = extractvalue {{{kinds}}} %r, {n}" for n in sums]
    last = "%r0"
    if count > 1:
        eight, sixteen = (", ".join(f"i32 {i}" for i in range(size)) for size in (8, 16))
        got += [
            f"%l = shufflevector <4 x i32> %r0, <4 x i32> %r1, <8 x i32> <{eight}>",
            f"%h = shufflevector <4 x i32> %r2, <4 x i32> %r3, <8 x i32> <{eight}>",
            f"%w = shufflevector <8 x i32> %l, <8 x i32> %h, <16 x i32> <{sixteen}>",
        ]
        last = "%w"
    call = f'%r = call {{{kinds}}} asm sideeffect "{"; ".join(code)}", "{limits}"({given})'
    body = "\n  ".join([*cut, call, *got, f"ret <{4 * count} x i32> {last}"])
    whole = f"<{4 * count} x i32> @{name}(<{4 * count} x i32> %t, <16 x i8> %a, <{16 * count} x i8> %b)"
    return f"define internal {whole} alwaysinline {{\n  {body}\n}}\n"


def _lay(word: int) -> str:
    places = [4 * word + half + i for half in (0, 2) for _ in range(4) for i in range(2)]
    index, v = ", ".join(f"i8 {place}" for place in places), "<16 x i8>"
    return f"""define internal {v} @lay{word}({v} %a) alwaysinline {{
  %r = call {v} asm sideeffect "tbl $0.16b, {{$1.16b}}, $2.16b", "=w,w,w"({v} %a, {v} <{index}>)
  ret {v} %r
}}
"""
