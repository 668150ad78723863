// Vectors of 16 numbers, a path each: what the day kernel and its yardstick in tests/bench have in common.
//
// Where a machine has narrower vectors one is made of two or four of those: between two vectors that are longer than the
// machine's, compilers choose number by number.
#pragma once

#include <cstdint>
#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

constexpr int L = 16;
#if defined(__AVX512F__)
constexpr int NATIVE = 16;
#elif defined(__AVX2__)
constexpr int NATIVE = 8;
#else
constexpr int NATIVE = 4;
#endif
using Floats = float __attribute__((vector_size(4 * NATIVE)));
using Ints = int32_t __attribute__((vector_size(4 * NATIVE)));

template <class X> struct NumberOf { using type = typename X::Number; };
template <> struct NumberOf<Floats> { using type = float; };
template <> struct NumberOf<Ints> { using type = int32_t; };

template <class X> struct Pair {
    using Number = typename NumberOf<X>::type;
    X low, high;
    Number operator[](int l) const { return reinterpret_cast<const Number*>(this)[l]; }
    Number& operator[](int l) { return reinterpret_cast<Number*>(this)[l]; }
};
template <class X> static inline Pair<X> pair(X low, X high) { return {low, high}; }

#define OF_BOTH(op)                                                                                  \
    template <class X> static inline auto operator op(Pair<X> x, Pair<X> y) {                        \
        return pair(x.low op y.low, x.high op y.high);                                               \
    }                                                                                                \
    template <class X> static inline auto operator op(Pair<X> x, typename Pair<X>::Number y) {       \
        return pair(x.low op y, x.high op y);                                                        \
    }                                                                                                \
    template <class X> static inline auto operator op(typename Pair<X>::Number x, Pair<X> y) {       \
        return pair(x op y.low, x op y.high);                                                        \
    }
OF_BOTH(+) OF_BOTH(-) OF_BOTH(*) OF_BOTH(/) OF_BOTH(&) OF_BOTH(|) OF_BOTH(<<) OF_BOTH(>>)
OF_BOTH(<) OF_BOTH(<=) OF_BOTH(>) OF_BOTH(>=) OF_BOTH(==) OF_BOTH(!=)
#undef OF_BOTH
template <class X> static inline Pair<X> operator-(Pair<X> x) { return {-x.low, -x.high}; }
template <class X> static inline Pair<X> operator~(Pair<X> x) { return {~x.low, ~x.high}; }
template <class X, class Y> static inline Pair<X>& operator+=(Pair<X>& x, Y y) { return x = x + y; }
template <class X, class Y> static inline Pair<X>& operator-=(Pair<X>& x, Y y) { return x = x - y; }
template <class X, class Y> static inline Pair<X>& operator&=(Pair<X>& x, Y y) { return x = x & y; }

template <class X, int lanes> struct Vector { using type = typename Vector<Pair<X>, 2 * lanes>::type; };
template <class X> struct Vector<X, L> { using type = X; };
using F = Vector<Floats, NATIVE>::type;
using I = Vector<Ints, NATIVE>::type;

static inline F all(float x) { return F{} + x; }

// Memory is read and written by vectors of the machine's width.
using SomeFloats = float __attribute__((vector_size(4 * NATIVE), aligned(4), may_alias));
using SomeInts = int32_t __attribute__((vector_size(4 * NATIVE), aligned(4), may_alias));
static inline void load(const float* x, Floats& y) { y = *reinterpret_cast<const SomeFloats*>(x); }
static inline void load(const int32_t* x, Ints& y) { y = *reinterpret_cast<const SomeInts*>(x); }
static inline void store(float* x, Floats y) { *reinterpret_cast<SomeFloats*>(x) = y; }
static inline void store(int32_t* x, Ints y) { *reinterpret_cast<SomeInts*>(x) = y; }
template <class T, class X> static inline void load(const T* x, Pair<X>& y) {
    load(x, y.low), load(x + sizeof(X) / sizeof(T), y.high);
}
template <class T, class X> static inline void store(T* x, Pair<X> y) {
    store(x, y.low), store(x + sizeof(X) / sizeof(T), y.high);
}
static inline F load(const float* x) {
    F y;
    load(x, y);
    return y;
}
static inline I load(const int32_t* x) {
    I y;
    load(x, y);
    return y;
}
static const int32_t COUNT[L] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
static const I IOTA = load(COUNT);

// What the machine does to vectors of its own width; below, the same of two.
static inline Floats where(Ints mask, Floats x, Floats y) { return mask ? x : y; }
static inline Ints where(Ints mask, Ints x, Ints y) { return mask ? x : y; }
static inline Ints as_int(Floats x) { return (Ints)x; }
static inline Floats as_float(Ints x) { return (Floats)x; }
static inline Floats number(Ints x) { return __builtin_convertvector(x, Floats); }
static inline Ints whole(Floats x) { return __builtin_convertvector(x, Ints); }
#if defined(__AVX512F__)
static inline Floats gather(const float* t, Ints i) { return (Floats)_mm512_i32gather_ps((__m512i)i, t, 4); }
static inline Ints gather(const int32_t* t, Ints i) { return (Ints)_mm512_i32gather_epi32((__m512i)i, t, 4); }
static inline void scatter(float* t, Ints i, Floats x) { _mm512_i32scatter_ps(t, (__m512i)i, (__m512)x, 4); }
static inline void scatter(int32_t* t, Ints i, Ints x) { _mm512_i32scatter_epi32(t, (__m512i)i, (__m512i)x, 4); }
static inline unsigned bits(Ints mask) { return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask); }
static inline Ints nearest(Floats x) { return (Ints)_mm512_cvtps_epi32((__m512)x); }
static inline int put(int32_t* list, I x, unsigned chosen) {
    _mm512_storeu_si512(list, _mm512_maskz_compress_epi32(__mmask16(chosen), (__m512i)x));
    return __builtin_popcount(chosen);
}
#else
#if defined(__AVX2__)
static inline Floats gather(const float* t, Ints i) { return (Floats)_mm256_i32gather_ps(t, (__m256i)i, 4); }
static inline Ints gather(const int32_t* t, Ints i) { return (Ints)_mm256_i32gather_epi32(t, (__m256i)i, 4); }
static inline unsigned bits(Ints mask) { return unsigned(_mm256_movemask_ps((__m256)mask)); }
static inline Ints nearest(Floats x) { return (Ints)_mm256_cvtps_epi32((__m256)x); }
#else
static inline Floats gather(const float* t, Ints i) { return Floats{t[i[0]], t[i[1]], t[i[2]], t[i[3]]}; }
static inline Ints gather(const int32_t* t, Ints i) { return Ints{t[i[0]], t[i[1]], t[i[2]], t[i[3]]}; }
static inline unsigned bits(Ints mask) {
    return (mask[0] & 1u) | (mask[1] & 2u) | (mask[2] & 4u) | (mask[3] & 8u);
}
static inline Ints nearest(Floats x) { return whole(x + 12582912.0f - 12582912.0f); }  // of numbers below 2^22
#endif
static inline void scatter(float* t, Ints i, Floats x) {
    for (int l = 0; l < NATIVE; ++l) t[i[l]] = x[l];
}
static inline void scatter(int32_t* t, Ints i, Ints x) {
    for (int l = 0; l < NATIVE; ++l) t[i[l]] = x[l];
}
static inline int put(int32_t* list, I x, unsigned chosen) {
    int n = 0;
    for (; chosen; chosen &= chosen - 1) list[n++] = x[__builtin_ctz(chosen)];
    return n;
}
#endif

template <class X, class Y> static inline Pair<Y> where(Pair<X> mask, Pair<Y> x, Pair<Y> y) {
    return {where(mask.low, x.low, y.low), where(mask.high, x.high, y.high)};
}
template <class X> static inline auto as_int(Pair<X> x) { return pair(as_int(x.low), as_int(x.high)); }
template <class X> static inline auto as_float(Pair<X> x) { return pair(as_float(x.low), as_float(x.high)); }
template <class X> static inline auto number(Pair<X> x) { return pair(number(x.low), number(x.high)); }
template <class X> static inline auto whole(Pair<X> x) { return pair(whole(x.low), whole(x.high)); }
template <class X> static inline auto nearest(Pair<X> x) { return pair(nearest(x.low), nearest(x.high)); }
template <class T, class X> static inline auto gather(const T* t, Pair<X> i) {
    return pair(gather(t, i.low), gather(t, i.high));
}
template <class T, class X, class Y> static inline void scatter(T* t, Pair<X> i, Pair<Y> x) {
    scatter(t, i.low, x.low), scatter(t, i.high, x.high);
}
// Of masks, whose numbers are 0 or -1.
template <class X> static inline unsigned bits(Pair<X> mask) {
    return bits(mask.low) | bits(mask.high) << (sizeof(X) / 4);
}
// Of a table of 32 numbers.
static inline F look_up(const float* t, I i) {
#if defined(__AVX512F__)
    return __builtin_shuffle(load(t), load(t + L), i);
#else
    return gather(t, i);
#endif
}

static inline F larger(F x, F y) { return where(x > y, x, y); }
static inline F smaller(F x, F y) { return where(x < y, x, y); }
static inline F magnitude(F x) { return as_float(as_int(x) & 0x7fffffff); }
static inline F signed_as(F size, F x) { return as_float(as_int(size) | (as_int(x) & int32_t(0x80000000))); }

// Binary logarithm of x > 0: exponent, and the series of artanh over a mantissa in [0.7, 1.4].
static inline F log2_of(F x) {
    const I shift = (as_int(x) - 0x3f3504f3) >> 23;
    const F m = as_float(as_int(x) - (shift << 23)), s = (m - 1) / (m + 1), t = s * s;
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
    return {as_float((exponent + 127) << 23), f * (1 + f * (1 / 2.0f + f * (1 / 6.0f + f * tail)))};
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
    return bits(large) ? where(large, expm1_of(x), series) : series;
}
static inline F log_of(F x) { return log2_of(x) * 0.6931471806f; }
static inline F power(F x, float exponent) {
    const I some = x > 1e-37f;
    return where(some, exp2_of(exponent * log2_of(where(some, x, all(1.0f)))), F{});
}

// Rows to columns, and back: blocks as wide as the machine's vectors, each by perfect shuffles.
static inline void transpose(F (&x)[L]) {
    constexpr int BLOCKS = L / NATIVE;
    F y[L];
    const Floats* from = reinterpret_cast<const Floats*>(x);
    Floats* to = reinterpret_cast<Floats*>(y);
    Ints first, second;
    for (int i = 0; i < NATIVE; ++i) first[i] = i / 2 + i % 2 * NATIVE, second[i] = first[i] + NATIVE / 2;
    for (int r = 0; r < BLOCKS; ++r)
        for (int c = 0; c < BLOCKS; ++c) {
            Floats now[NATIVE], next[NATIVE];
            for (int i = 0; i < NATIVE; ++i) now[i] = from[(r * NATIVE + i) * BLOCKS + c];
            for (int turn = 1; turn < NATIVE; turn *= 2) {
                for (int i = 0; i < NATIVE / 2; ++i) {
                    next[2 * i] = __builtin_shuffle(now[i], now[i + NATIVE / 2], first);
                    next[2 * i + 1] = __builtin_shuffle(now[i], now[i + NATIVE / 2], second);
                }
                for (int i = 0; i < NATIVE; ++i) now[i] = next[i];
            }
            for (int i = 0; i < NATIVE; ++i) to[(c * NATIVE + i) * BLOCKS + r] = now[i];
        }
    for (int i = 0; i < L; ++i) x[i] = y[i];
}

// 16 rows of 4 numbers to columns.
static inline void columns(const float* rows, F (&x)[4]) {
#if defined(__AVX512F__)
    const I even = {0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29}, odd = even + 2;
    const I low = {0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23}, high = low + 8;
    for (int j = 0; j < 2; ++j) {
        const I which = j ? odd : even;
        const F a = __builtin_shuffle(load(rows), load(rows + L), which);
        const F b = __builtin_shuffle(load(rows + 2 * L), load(rows + 3 * L), which);
        x[2 * j] = __builtin_shuffle(a, b, low), x[2 * j + 1] = __builtin_shuffle(a, b, high);
    }
#else
    using Four = float __attribute__((vector_size(16), aligned(4), may_alias));
    using FourInts = int32_t __attribute__((vector_size(16)));
    const FourInts first = {0, 4, 1, 5}, second = {2, 6, 3, 7};
    Four* to = reinterpret_cast<Four*>(x);
    for (int b = 0; b < L / 4; ++b) {
        const Four* y = reinterpret_cast<const Four*>(rows + b * L);
        const Four a = __builtin_shuffle(y[0], y[2], first), c = __builtin_shuffle(y[0], y[2], second);
        const Four d = __builtin_shuffle(y[1], y[3], first), e = __builtin_shuffle(y[1], y[3], second);
        to[b] = __builtin_shuffle(a, d, first), to[L / 4 + b] = __builtin_shuffle(a, d, second);
        to[L / 2 + b] = __builtin_shuffle(c, e, first), to[3 * L / 4 + b] = __builtin_shuffle(c, e, second);
    }
#endif
}
