// A product with one matrix of few bits: takes the place of ONNX Runtime's MatMulNBits.
#pragma once
#include <cstring>
#include <vector>

#include "tensor.h"

struct Blocks {
  static constexpr const char* NAME = "MatMulNBits";
  static constexpr size_t REQUIRED_INPUTS = 3, INPUTS = 6, OUTPUTS = 1;
  static constexpr int TYPES[] = {FLOAT, UINT8, FLOAT, UINT8, INT32, FLOAT};

  const Api& api;
  int64_t k = 0, n = 0, bits = 0;
  uint8_t* panels = nullptr;

  explicit Blocks(const Api& api) : api(api) {}
  ~Blocks() { std::free(panels); }

  Status* create(const KernelInfo* info) {
    int64_t block, level;
    size_t inputs;
    TRY(api.attribute(info, "K", &k));
    TRY(api.attribute(info, "N", &n));
    TRY(api.attribute(info, "bits", &bits));
    TRY(api.attribute(info, "block_size", &block));
    TRY(api.attribute(info, "accuracy_level", &level));
    TRY(api.input_count(info, &inputs));
    if (block != 32 || (bits != 4 && bits != 8) || level != 4 || inputs > 4)
      return api.fail("octavo: not 4 or 8 bits in blocks of 32, at accuracy level 4, without order or bias");
    Tensor b, scales, zeros;
    TRY(constant(api, info, 1, &b));
    TRY(constant(api, info, 2, &scales));
    int is = 0;
    const Value* value = nullptr;
    if (Status* absent = api.constant(info, 3, &is, &value)) api.release(absent), is = 0;
    if (is && value) TRY(zeros.read(api, value));
    int64_t blocks = (k + 31) / 32;
    bool fits = b.count() == n * blocks * 4 * bits && scales.count() == n * blocks && scales.type == FLOAT;
    fits = fits && (!zeros.data || (zeros.count() == n * ((blocks * bits + 7) / 8) && zeros.type == UINT8));
    if (k < 1 || n < 1 || !fits) return api.fail("octavo: weights, scales or zero points do not fit");
    pack((const uint8_t*)b.data, (const float*)scales.data, (const uint8_t*)zeros.data);
    return nullptr;
  }

  void pack(const uint8_t* b, const float* scales, const uint8_t* zeros) {
    size_t blocks = (k + 31) / 32, size = 64 * bits + 80, count = (n + 15) / 16, zero_row = (blocks * bits + 7) / 8;
    panels = (uint8_t*)memory(count * blocks * size);
    std::memset(panels, 0, count * blocks * size);
    for (size_t column = 0; column < (size_t)n; column++)
      for (size_t each = 0; each < blocks; each++) {
        uint8_t* to = panels + (column / 16 * blocks + each) * size;
        size_t lane = column % 16;
        const uint8_t* from = b + (column * blocks + each) * 4 * bits;
        for (size_t i = 0; i < 32; i++) {
          if (bits == 8) to[i / 4 * 64 + lane * 4 + i % 4] = from[i];
          else to[i / 8 * 64 + lane * 4 + i % 4] |= (from[i / 2] >> i % 2 * 4 & 15) << i / 4 % 2 * 4;
        }
        std::memcpy(to + 64 * bits + lane * 4, scales + column * blocks + each, 4);
        uint8_t zero = bits == 4 ? 8 : 128;
        if (zeros && bits == 8) zero = zeros[column * zero_row + each];
        if (zeros && bits == 4) zero = zeros[column * zero_row + each / 2] >> each % 2 * 4 & 15;
        to[64 * bits + 64 + lane] = zero;
      }
  }

  Status* compute(KernelContext* context) {
    const Value* value;
    TRY(api.input(context, 0, &value));
    Tensor a;
    TRY(a.read(api, value));
    size_t m = 1;
    for (size_t i = 0; i + 1 < a.sides.size(); i++) m *= a.sides[i];
    if (a.sides.empty() || a.sides.back() != k) return api.fail("octavo: rows and matrix do not fit");
    a.sides.back() = n;
    Value* out;
    float* to;
    TRY(api.output(context, 0, a.sides.data(), a.sides.size(), &out));
    TRY(api.data(out, (void**)&to));
    if (!m) return nullptr;
    size_t blocks = (k + 31) / 32;
    static thread_local std::vector<int8_t> q;
    static thread_local std::vector<float> scale;
    static thread_local std::vector<int32_t> sum;
    q.resize(m * blocks * 32), scale.resize(m * blocks), sum.resize(m * blocks);
    for (size_t i = 0; i < m; i++)
      products()->quantize((const float*)a.data + i * k, k, &q[i * blocks * 32], &scale[i * blocks], &sum[i * blocks]);
    Few p{q.data(), scale.data(), sum.data(), panels, to, m, blocks, (size_t)n};
    struct Job {
      const Few& p;
      int bits;
      size_t panels, parts;
    } job{p, (int)bits, ((size_t)n + 15) / 16, 0};
    job.parts = job.panels < 64 ? job.panels : 64;
    return api.parallel(context, [](void* data, size_t part) {
      Job& job = *(Job*)data;
      products()->few(job.p, job.bits, job.panels * part / job.parts, job.panels * (part + 1) / job.parts);
    }, job.parts, &job);
  }
};
