// What the kernels share: tensors and memory of ONNX Runtime's, the instructions that this processor has.
#pragma once
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include "ort.h"
#include "products.h"

#define TRY(call) if (Status* status = (call)) return status

inline const Products* products() {
  static const Products* found = [] {
    __builtin_cpu_init();
    bool wide = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
    const char* least = std::getenv("OCTAVO_INSTRUCTIONS");  // "avx2" leaves AVX-512 alone
    wide = wide && !(least && !std::strcmp(least, "avx2"));
    bool some = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    return wide ? &AVX512 : some ? &AVX2 : nullptr;
  }();
  return found;
}

struct Tensor {
  void* data = nullptr;
  int type = 0;
  std::vector<int64_t> sides;

  int64_t count() const {
    int64_t product = 1;
    for (int64_t side : sides) product *= side;
    return product;
  }

  Status* read(const Api& api, const Value* value) {
    ShapeInfo* shape;
    TRY(api.shape(value, &shape));
    size_t rank;
    Status* status = api.rank(shape, &rank);
    if (!status) sides.resize(rank), status = api.sides(shape, sides.data(), rank);
    if (!status) status = api.element_type(shape, &type);
    api.release(shape);
    return status ? status : api.data(const_cast<Value*>(value), &data);
  }
};

inline Status* constant(const Api& api, const KernelInfo* info, size_t i, Tensor* out) {
  int is = 0;
  const Value* value = nullptr;
  TRY(api.constant(info, i, &is, &value));
  if (!is || !value) return api.fail("octavo: a weight is not a constant");
  return out->read(api, value);
}

inline void* memory(size_t bytes) {
  void* found = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (!found) throw std::bad_alloc();
  return found;
}

// Whether all numbers are bfloat16 in 32 bits.
inline bool widened(const uint32_t* b, size_t count) {
  uint32_t low = 0;
  for (size_t i = 0; i < count; i++) low |= b[i];
  return !(low & 0xffff);
}

// A matrix [k, n] in panels of some columns, [.][k][width], zeros beyond n; in half of the bytes where it is widened.
inline void* packed(const uint32_t* b, size_t k, size_t n, size_t width, bool half) {
  size_t lanes = products()->vector, count = (n + width - 1) / width;
  void* panels = memory(count * width * k * (half ? 2 : 4));
  for (size_t p = 0; p < count; p++)
    for (size_t i = 0; i < k; i++)
      for (size_t j = 0; j < width; j++) {
        size_t column = p * width + j, row = (p * k + i) * width;
        uint32_t bits = column < n ? b[i * n + column] : 0;
        if (!half) ((uint32_t*)panels)[row + j] = bits;
        else ((uint16_t*)panels)[row + j / (2 * lanes) * 2 * lanes + j % lanes * 2 + j / lanes % 2] = bits >> 16;
      }
  return panels;
}
