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
