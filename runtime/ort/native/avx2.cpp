#include <immintrin.h>

#include "products.h"

namespace {
typedef float V __attribute__((vector_size(32)));
constexpr int LANES = 8, WIDE = 2, TALL = 6;
constexpr size_t AHEAD = 4096;
inline V spread(float x) { return (V)_mm256_set1_ps(x); }
#include "dense.h"
#include "attend.h"
}  // namespace

const Products AVX2 = {"avx2", WIDTH, product<Single>, product<Half>, addition, attend, LANES, nullptr, nullptr};
