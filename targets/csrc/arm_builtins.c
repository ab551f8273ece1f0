/* arm_builtins.c - what compilers call on 32-bit ARM for work that the processor has no instruction for.
 *
 * Part of the compiler's own library elsewhere; models are linked without one. The names and the calling rules are those of the
 * "Run-time ABI for the Arm Architecture". Linked functions that nothing calls are dropped. */
#include <stdint.h>

uint32_t __aeabi_uidiv(uint32_t numerator, uint32_t denominator);
uint64_t __aeabi_uidivmod(uint32_t numerator, uint32_t denominator);
int32_t __aeabi_idiv(int32_t numerator, int32_t denominator);
uint64_t __aeabi_idivmod(int32_t numerator, int32_t denominator);
double __aeabi_ul2d(uint64_t value);
void __aeabi_unwind_cpp_pr0(void);
void __aeabi_unwind_cpp_pr1(void);

/* Quotient in the low half (r0), remainder in the high one (r1). Written without `/`, which would call itself. 0 for a division by 0. */
static inline uint64_t divide(uint32_t numerator, uint32_t denominator) {
  if (denominator == 0) return 0;
  uint32_t quotient = 0;
  int shift = 0;
  if (numerator >= denominator) shift = __builtin_clz(denominator) - __builtin_clz(numerator);
  for (; shift >= 0; --shift) {
    if (numerator >> shift < denominator) continue;
    numerator -= denominator << shift;
    quotient |= (uint32_t)1 << shift;
  }
  return (uint64_t)numerator << 32 | quotient;
}

static inline uint32_t magnitude(int32_t value) { return value < 0 ? 0u - (uint32_t)value : (uint32_t)value; }

uint32_t __aeabi_uidiv(uint32_t numerator, uint32_t denominator) { return (uint32_t)divide(numerator, denominator); }

uint64_t __aeabi_uidivmod(uint32_t numerator, uint32_t denominator) { return divide(numerator, denominator); }

uint64_t __aeabi_idivmod(int32_t numerator, int32_t denominator) {
  const uint64_t parts = divide(magnitude(numerator), magnitude(denominator));
  const uint32_t quotient = (uint32_t)parts, remainder = (uint32_t)(parts >> 32);
  const uint32_t q = (numerator < 0) != (denominator < 0) ? 0u - quotient : quotient;
  const uint32_t r = numerator < 0 ? 0u - remainder : remainder;
  return (uint64_t)r << 32 | q;
}

int32_t __aeabi_idiv(int32_t numerator, int32_t denominator) { return (int32_t)__aeabi_idivmod(numerator, denominator); }

double __aeabi_ul2d(uint64_t value) { return (double)(uint32_t)(value >> 32) * 4294967296.0 + (double)(uint32_t)value; }

/* Unwinding through a model's code is not supported; its tables only need these to exist. */
void __aeabi_unwind_cpp_pr0(void) {}
void __aeabi_unwind_cpp_pr1(void) {}
