#include "products.h"
#include <immintrin.h>

namespace {
typedef float V __attribute__((vector_size(64)));
constexpr int LANES = 16, WIDE = 4;
constexpr size_t AHEAD = 4096;
inline V spread(float x) { return (V)_mm512_set1_ps(x); }
#include "dense.h"
#include "attend.h"

template <int BITS, int M>
inline void few_tile(const Few& p, size_t row, const uint8_t* b, float* c, size_t ldc, __mmask16 columns) {
  size_t blocks = p.blocks, k32 = blocks * 32;
  __m512 sum[M];
  for (int i = 0; i < M; i++) sum[i] = _mm512_setzero_ps();
  const __m512i low = _mm512_set1_epi8(15);
  const int8_t* q = p.q + row * k32;
  const float* scale = p.scale + row * blocks;
  const int32_t* total = p.sum + row * blocks;
  for (size_t k = 0; k < blocks; k++, b += BLOCK<BITS>) {
    for (size_t ahead = 0; ahead < BLOCK<BITS>; ahead += 64) __builtin_prefetch(b + AHEAD + ahead);
    __m512i zero = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)(b + 64 * BITS + 64)));
    __m512i dot[M];
    for (int i = 0; i < M; i++)
      dot[i] = _mm512_dpwssd_epi32(_mm512_setzero_si512(), zero, _mm512_set1_epi32((uint16_t)-total[i * blocks + k]));
    for (int g = 0; g < 8; g += 2) {
      __m512i w0, w1;
      if (BITS == 4) {
        __m512i both = _mm512_loadu_si512(b + g * 32);
        w0 = _mm512_and_si512(both, low);
        w1 = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
      } else {
        w0 = _mm512_loadu_si512(b + g * 64);
        w1 = _mm512_loadu_si512(b + g * 64 + 64);
      }
      for (int i = 0; i < M; i++) {
        const int32_t* x = (const int32_t*)(q + i * k32 + k * 32 + g * 4);
        dot[i] = _mm512_dpbusd_epi32(dot[i], w0, _mm512_set1_epi32(x[0]));
        dot[i] = _mm512_dpbusd_epi32(dot[i], w1, _mm512_set1_epi32(x[1]));
      }
    }
    __m512 s = _mm512_loadu_ps((const float*)(b + 64 * BITS));
    for (int i = 0; i < M; i++)
      sum[i] = _mm512_fmadd_ps(
          _mm512_mul_ps(_mm512_cvtepi32_ps(dot[i]), s), _mm512_set1_ps(scale[i * blocks + k]), sum[i]);
  }
  for (int i = 0; i < M; i++) _mm512_mask_storeu_ps(c + i * ldc, columns, sum[i]);
}

template <int BITS>
void few_bits(const Few& p, size_t first, size_t last) {
  for (size_t each = first; each < last; each++) {
    const uint8_t* b = p.panels + each * p.blocks * BLOCK<BITS>;
    size_t left = p.n - each * 16;
    __mmask16 columns = left >= 16 ? 0xffff : (1 << left) - 1;
    for (size_t i = 0; i < p.m;) {
      float* c = p.out + i * p.n + each * 16;
      size_t rest = p.m - i;
      if (rest >= 10) few_tile<BITS, 10>(p, i, b, c, p.n, columns), i += 10;
      else if (rest >= 8) few_tile<BITS, 8>(p, i, b, c, p.n, columns), i += 8;
      else if (rest >= 4) few_tile<BITS, 4>(p, i, b, c, p.n, columns), i += 4;
      else if (rest >= 2) few_tile<BITS, 2>(p, i, b, c, p.n, columns), i += 2;
      else few_tile<BITS, 1>(p, i, b, c, p.n, columns), i += 1;
    }
  }
}

void few(const Few& p, int bits, size_t first, size_t last) {
  bits == 4 ? few_bits<4>(p, first, last) : few_bits<8>(p, first, last);
}

// Blocks of 32 floats into -127..127 of their largest; a block with a NaN or an infinity gets a scale of NaN.
void quantize(const float* row, size_t k, int8_t* q, float* scale, int32_t* sum) {
  for (size_t at = 0; at < k; at += 32, row += 32, q += 32, scale++, sum++) {
    uint32_t there = k - at < 32 ? (1u << (k - at)) - 1 : ~0u;
    __m512 a = _mm512_maskz_loadu_ps((__mmask16)there, row);
    __m512 b = _mm512_maskz_loadu_ps((__mmask16)(there >> 16), row + 16);
    float most = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)));
    bool odd = _mm512_fpclass_ps_mask(a, 0x99) | _mm512_fpclass_ps_mask(b, 0x99);
    *scale = odd ? __builtin_nanf("") : most / 127;
    __m512 by = _mm512_set1_ps(most > 0 ? 127 / most : 0);
    __m512i x = _mm512_cvtps_epi32(_mm512_mul_ps(a, by)), y = _mm512_cvtps_epi32(_mm512_mul_ps(b, by));
    _mm_storeu_si128((__m128i*)q, _mm512_cvtsepi32_epi8(x));
    _mm_storeu_si128((__m128i*)(q + 16), _mm512_cvtsepi32_epi8(y));
    *sum = _mm512_reduce_add_epi32(_mm512_add_epi32(x, y));
  }
}
}  // namespace

const Products AVX512 = {"avx512-vnni", WIDTH, pack, product<Single>, product<Half>, addition, attend, attend_forks,
                          LANES, few, quantize};
