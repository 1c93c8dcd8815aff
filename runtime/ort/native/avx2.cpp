#include <immintrin.h>
#include <cfloat>
#include <cmath>
#include <cstring>

#include "products.h"

namespace {
typedef float V __attribute__((vector_size(32)));
constexpr int LANES = 8, WIDE = 2;
constexpr size_t AHEAD = 4096;
inline V spread(float x) { return (V)_mm256_set1_ps(x); }
#include "dense.h"
#include "attend.h"

// Four bits times eight add up in 16 bits without overflow over a whole block (8 x 2 x 15 x 127 < 2^15), so weights of
// eight bits are two planes of four.
template <int BITS, int M>
inline void few_half(const Few& p, size_t row, size_t k, const uint8_t* b, int half, V* sum) {
  const size_t k32 = p.blocks * 32;
  const int8_t* q = p.q + row * k32 + k * 32;
  const __m256i mask = _mm256_set1_epi8(15);
  __m256i low[M], high[M];
  for (int i = 0; i < M; i++) low[i] = high[i] = _mm256_setzero_si256();
#pragma GCC unroll 1  // unrolled, more is held than there are registers
  for (int step = 0; step < BITS; step++) {
    __m256i both = _mm256_loadu_si256((const __m256i*)(b + step * 64 + half * 32));
    __m256i w0 = _mm256_and_si256(both, mask), w1 = _mm256_and_si256(_mm256_srli_epi16(both, 4), mask);
#pragma GCC unroll 16
    for (int i = 0; i < M; i++) {
      const int32_t* x = (const int32_t*)(q + i * k32) + (BITS == 4 ? 2 * step : step);
      __m256i x0 = _mm256_set1_epi32(x[0]), x1 = BITS == 4 ? _mm256_set1_epi32(x[1]) : x0;
      low[i] = _mm256_add_epi16(low[i], _mm256_maddubs_epi16(w0, x0));
      __m256i& to = BITS == 4 ? low[i] : high[i];
      to = _mm256_add_epi16(to, _mm256_maddubs_epi16(w1, x1));
    }
  }
  const __m256 scales = _mm256_loadu_ps((const float*)(b + 64 * BITS) + half * 8);
  const __m256i zero = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)(b + 64 * BITS + 64 + half * 8)));
  for (int i = 0; i < M; i++) {
    const size_t at = (row + i) * p.blocks + k;
    __m256i dot = _mm256_madd_epi16(low[i], _mm256_set1_epi16(1));
    dot = _mm256_sub_epi32(dot, _mm256_madd_epi16(zero, _mm256_set1_epi32(p.sum[at])));
    if (BITS == 8) dot = _mm256_add_epi32(dot, _mm256_madd_epi16(high[i], _mm256_set1_epi16(16)));
    __m256 scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(dot), scales);
    sum[i] = (V)_mm256_fmadd_ps(scaled, _mm256_set1_ps(p.scale[at]), (__m256)sum[i]);
  }
}

template <int BITS, int M>
inline void few_tile(const Few& p, size_t row, const uint8_t* b, float* c, size_t columns) {
  V sum[2][M] = {};
  for (size_t k = 0; k < p.blocks; k++, b += BLOCK<BITS>) {
    for (size_t ahead = 0; ahead < BLOCK<BITS>; ahead += 64) __builtin_prefetch(b + AHEAD + ahead);
    few_half<BITS, M>(p, row, k, b, 0, sum[0]);
    few_half<BITS, M>(p, row, k, b, 1, sum[1]);
  }
  for (int i = 0; i < M; i++)
    for (size_t j = 0; j < columns; j++) c[i * p.n + j] = sum[j / 8][i][j % 8];
}

template <int BITS>
void few_bits(const Few& p, size_t first, size_t last) {
  for (size_t each = first; each < last; each++) {
    const uint8_t* b = p.panels + each * p.blocks * BLOCK<BITS>;
    const size_t columns = p.n - each * 16 < 16 ? p.n - each * 16 : 16;
    for (size_t i = 0; i < p.m;) {
      float* c = p.out + i * p.n + each * 16;
      if (BITS == 4 && p.m - i >= 8) few_tile<BITS, 8>(p, i, b, c, columns), i += 8;
      else if (p.m - i >= 4) few_tile<BITS, 4>(p, i, b, c, columns), i += 4;
      else if (p.m - i >= 2) few_tile<BITS, 2>(p, i, b, c, columns), i += 2;
      else few_tile<BITS, 1>(p, i, b, c, columns), i += 1;
    }
  }
}

void few(const Few& p, int bits, size_t first, size_t last) {
  bits == 4 ? few_bits<4>(p, first, last) : few_bits<8>(p, first, last);
}

// Blocks of 32 floats into -127..127 of their largest; a block with a NaN or an infinity gets a scale of NaN.
void quantize(const float* row, size_t k, int8_t* q, float* scale, int32_t* sum) {
  for (size_t at = 0; at < k; at += 32, q += 32, scale++, sum++) {
    float x[32] = {}, most = 0;
    std::memcpy(x, row + at, (k - at < 32 ? k - at : 32) * sizeof(float));
    bool odd = false;
    for (float each : x) {
      most = std::fabs(each) > most ? std::fabs(each) : most;
      odd |= !(std::fabs(each) <= FLT_MAX);
    }
    *scale = odd ? __builtin_nanf("") : most / 127;
    const __m256 by = _mm256_set1_ps(most > 0 ? 127 / most : 0);
    *sum = 0;
    for (int i = 0; i < 32; i++) x[i] = odd ? 0 : x[i];
    for (int part = 0; part < 4; part++) {
      int32_t whole[8];
      _mm256_storeu_si256((__m256i*)whole, _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + part * 8), by)));
      for (int i = 0; i < 8; i++) q[part * 8 + i] = (int8_t)whole[i], *sum += whole[i];
    }
  }
}
}  // namespace

const Products AVX2 = {"avx2", WIDTH, pack, product<Single>, product<Half>, addition, attend, attend_forks,
                        LANES, few, quantize};
