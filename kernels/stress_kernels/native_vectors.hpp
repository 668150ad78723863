// Vectors of 16 numbers, a path each: what the day kernel and its yardstick in tests/bench have in common.
//
// Slow where a machine has narrower vectors only.
#pragma once

#include <cstdint>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

constexpr int L = 16;

using F = float __attribute__((vector_size(4 * L)));
using I = int32_t __attribute__((vector_size(4 * L)));
using Unaligned = float __attribute__((vector_size(4 * L), aligned(4), may_alias));
using UnalignedInt = int32_t __attribute__((vector_size(4 * L), aligned(4), may_alias));

static const I IOTA = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

static inline F all(float x) { return F{} + x; }
static inline F load(const float* x) { return *reinterpret_cast<const Unaligned*>(x); }
static inline I load(const int32_t* x) { return *reinterpret_cast<const UnalignedInt*>(x); }
static inline void store(float* x, F y) { *reinterpret_cast<Unaligned*>(x) = y; }
static inline void store(int32_t* x, I y) { *reinterpret_cast<UnalignedInt*>(x) = y; }
static inline F larger(F x, F y) { return x > y ? x : y; }
static inline F smaller(F x, F y) { return x < y ? x : y; }
static inline F magnitude(F x) { return (F)((I)x & 0x7fffffff); }
static inline F signed_as(F size, F x) { return (F)((I)size | ((I)x & int32_t(0x80000000))); }
static inline F number(I x) { return __builtin_convertvector(x, F); }
static inline I whole(F x) { return __builtin_convertvector(x, I); }

#ifdef __AVX512F__
static inline F gather(const float* t, I i) { return (F)_mm512_i32gather_ps((__m512i)i, t, 4); }
static inline I gather(const int32_t* t, I i) { return (I)_mm512_i32gather_epi32((__m512i)i, t, 4); }
static inline void scatter(float* t, I i, F x) { _mm512_i32scatter_ps(t, (__m512i)i, (__m512)x, 4); }
static inline void scatter(int32_t* t, I i, I x) { _mm512_i32scatter_epi32(t, (__m512i)i, (__m512i)x, 4); }
static inline unsigned bits(I mask) { return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask); }
static inline I nearest(F x) { return (I)_mm512_cvtps_epi32((__m512)x); }
static inline int put(int32_t* list, I x, unsigned chosen) {
    _mm512_storeu_si512(list, _mm512_maskz_compress_epi32(__mmask16(chosen), (__m512i)x));
    return __builtin_popcount(chosen);
}
#else
static inline F gather(const float* t, I i) {
    F x;
    for (int l = 0; l < L; ++l) x[l] = t[i[l]];
    return x;
}
static inline I gather(const int32_t* t, I i) {
    I x;
    for (int l = 0; l < L; ++l) x[l] = t[i[l]];
    return x;
}
static inline void scatter(float* t, I i, F x) {
    for (int l = 0; l < L; ++l) t[i[l]] = x[l];
}
static inline void scatter(int32_t* t, I i, I x) {
    for (int l = 0; l < L; ++l) t[i[l]] = x[l];
}
static inline unsigned bits(I mask) {
    unsigned x = 0;
    for (int l = 0; l < L; ++l) x |= unsigned(mask[l] != 0) << l;
    return x;
}
static inline I nearest(F x) { return whole(x + 12582912.0f - 12582912.0f); }  // of numbers below 2^22
static inline int put(int32_t* list, I x, unsigned chosen) {
    int n = 0;
    for (; chosen; chosen &= chosen - 1) list[n++] = x[__builtin_ctz(chosen)];
    return n;
}
#endif

// Binary logarithm of x > 0: exponent, and the series of artanh over a mantissa in [0.7, 1.4].
static inline F log2_of(F x) {
    const I shift = ((I)x - 0x3f3504f3) >> 23;
    const F m = (F)((I)x - (shift << 23)), s = (m - 1) / (m + 1), t = s * s;
    const F series = 1 + t * (1 / 3.0f + t * (1 / 5.0f + t * (1 / 7.0f + t * (1 / 9.0f))));
    return number(shift) + 2.885390082f * s * series;
}

// 2^x as a power of two, and that times a number less 1; what is no number stays none.
struct Power {
    F two, rest;
};
static inline Power parted(F x) {
    x = larger(all(-126.0f), smaller(all(126.0f), x));
    const I exponent = nearest(x);
    const F f = (x - number(exponent)) * 0.6931471806f;
    const F tail = 1 / 24.0f + f * (1 / 120.0f + f * (1 / 720.0f + f / 5040));
    return {(F)((exponent + 127) << 23), f * (1 + f * (1 / 2.0f + f * (1 / 6.0f + f * tail)))};
}
static inline F exp2_of(F x) {
    const Power p = parted(x);
    return p.two * p.rest + p.two;
}
// 2^x - 1, good to the last bits near 0.
static inline F exp2m1(F x) {
    const Power p = parted(x);
    return p.two * p.rest + (p.two - 1);
}
static inline F exp_of(F x) { return exp2_of(x * 1.442695041f); }
static inline F expm1_of(F x) { return exp2m1(x * 1.442695041f); }
// The same for less, where all x are small, as mostly they are.
static inline F small_expm1(F x) {
    const I large = magnitude(x) > 0.1f;
    const F series = x * (1 + x * (1 / 2.0f + x * (1 / 6.0f + x * (1 / 24.0f + x * (1 / 120.0f)))));
    return bits(large) ? (large ? expm1_of(x) : series) : series;
}
static inline F log_of(F x) { return log2_of(x) * 0.6931471806f; }
static inline F power(F x, float exponent) {
    const I some = x > 1e-37f;
    return some ? exp2_of(exponent * log2_of(some ? x : all(1.0f))) : F{};
}

// Rows to columns, and back: four perfect shuffles.
static inline void transpose(F (&x)[L]) {
    const I first = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23}, second = first + 8;
    for (int turn = 0; turn < 4; ++turn) {
        F y[L];
        for (int i = 0; i < L / 2; ++i) {
            y[2 * i] = __builtin_shuffle(x[i], x[i + L / 2], first);
            y[2 * i + 1] = __builtin_shuffle(x[i], x[i + L / 2], second);
        }
        for (int i = 0; i < L; ++i) x[i] = y[i];
    }
}
