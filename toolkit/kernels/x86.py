"""What kernels for x86 say in LLVM's own language, because TVM has no word for it."""

from __future__ import annotations

TO_LINE = """; ModuleID = 'line'
define internal i32 @to_line(ptr %p) alwaysinline {
  %i = ptrtoint ptr %p to i64
  %n = sub i64 0, %i
  %m = and i64 %n, 63
  %r = trunc i64 %m to i32
  ret i32 %r
}
"""
"""Bytes from an address to the next cache line."""

NARROW = """; ModuleID = 'bfloat16'
target triple = "x86_64-unknown-linux-gnu"
declare <16 x bfloat> @llvm.x86.avx512bf16.cvtneps2bf16.512(<16 x float>)
declare <32 x bfloat> @llvm.x86.avx512bf16.cvtne2ps2bf16.512(<16 x float>, <16 x float>)
define internal <16 x i16> @narrow16(<16 x float> %a) alwaysinline {
  %r = call <16 x bfloat> @llvm.x86.avx512bf16.cvtneps2bf16.512(<16 x float> %a)
  %i = bitcast <16 x bfloat> %r to <16 x i16>
  ret <16 x i16> %i
}
define internal <32 x i16> @narrow32(<16 x float> %a, <16 x float> %b) alwaysinline {
  %r = call <32 x bfloat> @llvm.x86.avx512bf16.cvtne2ps2bf16.512(<16 x float> %b, <16 x float> %a)
  %i = bitcast <32 x bfloat> %r to <32 x i16>
  ret <32 x i16> %i
}
"""
"""The machine's instructions that round to bfloat16, which TVM has no type for. Inlined where they are called."""
