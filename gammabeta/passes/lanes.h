// What the compiled sources share: sixteen values at a time, in fp32 or bf16, and the merging of
// partial sums.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace {

constexpr int LANES = 16;
constexpr int MOST_WIDE = 128;  // vectors in a row of channels: what arrays on the stack hold

typedef float V __attribute__((vector_size(64)));
typedef int32_t I __attribute__((vector_size(64)));
typedef uint32_t U __attribute__((vector_size(64)));
typedef uint16_t H __attribute__((vector_size(32)));

struct bf16 { uint16_t bits; };

inline V load(const float* p) { V v; std::memcpy(&v, p, sizeof v); return v; }
inline void store(float* p, V v) { std::memcpy(p, &v, sizeof v); }

inline V load(const bf16* p) {
  H h; std::memcpy(&h, p, sizeof h);
  return (V)(__builtin_convertvector(h, U) << 16);
}

inline void store(bf16* p, V v) {  // to nearest, ties to even
#ifdef __AVX512BF16__
  __m256bh h = _mm512_cvtneps_pbh((__m512)v);
  std::memcpy(p, &h, sizeof h);
#else
  U u = (U)v;
  U rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
  U quiet = (u >> 16) | 0x40;
  U is_nan = (U)(v != v);
  H h = __builtin_convertvector((rounded & ~is_nan) | (quiet & is_nan), H);
  std::memcpy(p, &h, sizeof h);
#endif
}

inline V all(float x) { return V{} + x; }

inline uint16_t bits_of(I mask) {
#ifdef __AVX512F__
  return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask);
#else
  uint16_t out = 0;
  for (int i = 0; i < LANES; i++) out |= (uint16_t)(mask[i] & 1) << i;
  return out;
#endif
}

inline V where(uint16_t bits, V v) {
#ifdef __AVX512F__
  return (V)_mm512_maskz_mov_ps(bits, (__m512)v);
#else
  I lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  I open = ((I{} + (int32_t)bits) >> lane) & 1;
  return (V)((I)v & -open);
#endif
}

inline V where(I mask, V v) { return (V)((I)v & mask); }

// body(vectors in a row), a constant where it is usual, so that coefficients stay in registers.
template <class Body> void with_width(int64_t channels, Body body) {
  switch (channels) {
    case 16: return body(std::integral_constant<int, 1>{});
    case 32: return body(std::integral_constant<int, 2>{});
    case 64: return body(std::integral_constant<int, 4>{});
    default: return body((int)(channels / LANES));
  }
}

// Means and sums of squares around them (2 x channels a part), of parts with rows_of(part) rows each,
// to mean and biased variance: Chan's formula, in double precision and in order.
template <class Rows>
void merge(const float* partial, int64_t parts, int64_t channels, Rows rows_of, float* mean,
           float* var) {
  for (int64_t c = 0; c < channels; c++) {
    double m = 0, m2 = 0, n = 0;
    for (int64_t k = 0; k < parts; k++) {
      double nk = (double)rows_of(k), total = n + nk;
      double d = partial[(2 * k) * channels + c] - m, own = partial[(2 * k + 1) * channels + c];
      m += d * (nk / total);
      m2 += (own < 0 ? 0 : own) + d * d * (n * nk / total);
      n = total;
    }
    mean[c] = (float)m;
    var[c] = (float)(m2 / n);
  }
}

// The sums of BatchNorm's backward (3 x channels a part) added up in order.
inline void add_up(const float* partial, int64_t parts, int64_t channels, float* dbeta,
                   float* dgamma, float* dgamma2) {
  for (int64_t c = 0; c < channels; c++) {
    double a = 0, b = 0, b2 = 0;
    for (int64_t k = 0; k < parts; k++) {
      a += partial[(3 * k) * channels + c];
      b += partial[(3 * k + 1) * channels + c];
      b2 += partial[(3 * k + 2) * channels + c];
    }
    dbeta[c] = (float)a;
    dgamma[c] = (float)b;
    if (dgamma2) dgamma2[c] = (float)b2;
  }
}

}  // namespace
