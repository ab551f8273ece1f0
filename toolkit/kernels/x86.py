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

VPMADDWD_SUM = """; ModuleID = 'vpmaddwd'
define internal <8 x i32> @vpmaddwd_sum(<8 x i32> %sum, <16 x i16> %a, <16 x i16> %b) alwaysinline {
  %p = call { <8 x i32>, <8 x i32> } asm "vpmaddwd $3, $2, $1; vpaddd $1, $0, $0", "=x,=&x,x,x,0"
    (<16 x i16> %a, <16 x i16> %b, <8 x i32> %sum)
  %r = extractvalue { <8 x i32>, <8 x i32> } %p, 0
  ret <8 x i32> %r
}
"""
"""A sum and the products of pairs as two instructions side by side: where they are apart LLVM makes all products first,
has no registers left for them, and keeps sums on the stack (docs/perf/cpu-int8.md).
"""

VPMADDUBSW_SUM = """; ModuleID = 'vpmaddubsw'
define internal <8 x i32> @vpmaddubsw_sum(<8 x i32> %sum, <32 x i8> %a, <32 x i8> %b) alwaysinline {
  %p = call { <8 x i32>, <8 x i32> } asm "vpmaddubsw $3, $2, $1; vpmaddwd $5, $1, $1; vpaddd $1, $0, $0",
    "=x,=&x,x,x,0,x"
    (<32 x i8> %a, <32 x i8> %b, <8 x i32> %sum, <8 x i32> splat (i32 65537))
  %r = extractvalue { <8 x i32>, <8 x i32> } %p, 0
  ret <8 x i32> %r
}
"""
"""The same of bytes: sums of two products, which are to fit 16 bits, by ones."""

WORDS_OF = """; ModuleID = 'words_of'
define internal <8 x i32> @words_of(ptr %p, i32 %constant, i32 %i) alwaysinline {
  %q = getelementptr inbounds i32, ptr %p, i32 %constant
  %r = getelementptr inbounds i32, ptr %q, i32 %i
  %w = load i32, ptr %r, align 4
  %v = insertelement <8 x i32> poison, i32 %w, i32 0
  %b = shufflevector <8 x i32> %v, <8 x i32> poison, <8 x i32> zeroinitializer
  ret <8 x i32> %b
}
"""
"""A word in all lanes, from an address and two indices: LLVM adds up a single index in 32 bits for each word, and
lengthens it. A second buffer at the address would do, but TVM tells LLVM that buffers are never the same memory.
"""
