// A product with one matrix in float32: takes the place of ONNX Runtime's MatMul.
#pragma once
#include "tensor.h"

struct Linear {
  static constexpr const char* NAME = "MatMul";
  static constexpr size_t REQUIRED_INPUTS = 2, INPUTS = 2, OUTPUTS = 1;
  static constexpr int TYPES[] = {FLOAT, FLOAT};

  const Api& api;
  size_t k = 0, n = 0;
  void* panels = nullptr;
  bool half = false;

  explicit Linear(const Api& api) : api(api) {}
  ~Linear() { std::free(panels); }

  Status* create(const KernelInfo* info) {
    Tensor b;
    TRY(constant(api, info, 1, &b));
    if (b.sides.size() != 2 || b.type != FLOAT) return api.fail("octavo: a matrix is not of two sides in float32");
    k = b.sides[0], n = b.sides[1];
    half = widened((const uint32_t*)b.data, k * n);
    panels = packed((const uint32_t*)b.data, k, n, products()->width, half);
    return nullptr;
  }

  Status* compute(KernelContext* context) {
    const Value* value;
    TRY(api.input(context, 0, &value));
    Tensor a;
    TRY(a.read(api, value));
    Dense p{(const float*)a.data, panels, nullptr, 1, k, n};
    for (size_t i = 0; i + 1 < a.sides.size(); i++) p.m *= a.sides[i];
    if (a.sides.empty() || (size_t)a.sides.back() != k) return api.fail("octavo: rows and matrix do not fit");
    a.sides.back() = n;
    Value* out;
    TRY(api.output(context, 0, a.sides.data(), a.sides.size(), &out));
    TRY(api.data(out, (void**)&p.out));
    if (!p.m) return nullptr;
    struct Job {
      const Dense& p;
      bool half;
      size_t panels, parts;
    } job{p, half, (n + products()->width - 1) / products()->width, 0};
    job.parts = job.panels < 64 ? job.panels : 64;
    return api.parallel(context, [](void* data, size_t part) {
      Job& job = *(Job*)data;
      auto run = job.half ? products()->half : products()->dense;
      run(job.p, job.panels * part / job.parts, job.panels * (part + 1) / job.parts);
    }, job.parts, &job);
  }
};
