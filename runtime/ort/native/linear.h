// A product with one matrix in float32: takes the place of ONNX Runtime's MatMul.
#pragma once
#include "tensor.h"

struct Linear {
  static constexpr const char* NAME = "MatMul";
  static constexpr size_t REQUIRED_INPUTS = 2, INPUTS = 2, OUTPUTS = 1;
  static constexpr int TYPES[] = {FLOAT, FLOAT};
  static constexpr size_t MOST = 480;  // rows that are packed at once

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
    struct Job {
      Dense p;
      bool half;
      size_t groups, parts;
    } job{p, half, (n + products()->width * GROUP - 1) / (products()->width * GROUP), 0};
    job.parts = least(job.groups, 64);
    for (size_t row = 0; row < p.m; row += job.p.m) {
      job.p.m = least(MOST, p.m - row);
      job.p.out = p.out + row * n;
      TRY(pack(context, p.rows + row * k, &job.p));
      TRY(api.parallel(context, [](void* data, size_t part) {
        Job& job = *(Job*)data;
        auto run = job.half ? products()->half : products()->dense;
        size_t panels = (job.p.n + products()->width - 1) / products()->width;
        size_t last = least(panels, GROUP * (job.groups * (part + 1) / job.parts));
        run(job.p, GROUP * (job.groups * part / job.parts), last);
      }, job.parts, &job));
    }
    return nullptr;
  }

  // Rows beside one another, packed, become those of a product.
  Status* pack(KernelContext* context, const float* rows, Dense* p) {
    static thread_local std::vector<float> numbers;
    static thread_local std::vector<const float*> each;
    p->rows = rows;
    if (p->m == 1) return nullptr;
    each.clear();
    for (size_t i = 0; i < p->m; i++) each.push_back(rows + i * k);
    if (numbers.size() < p->m * k) numbers.resize(p->m * k);
    p->rows = numbers.data();
    struct Job {
      const float* const* from;
      const Dense& p;
      float* to;
    } job{each.data(), *p, numbers.data()};
    return api.parallel(context, [](void* data, size_t part) {
      Job& job = *(Job*)data;
      size_t first = part * TOGETHER, last = least(first + TOGETHER, tiles(job.p.m));
      products()->pack(job.from, job.p.m, job.p.k, job.to, first, last);
    }, (tiles(p->m) + TOGETHER - 1) / TOGETHER, &job);
  }
};
