// What a row's own adapter adds to a linear layer: there + ((x * A) times factors) * B, of which only the columns of A are
// computed whose factor is not zero. Octavo's loader puts it where a graph has these four operators.
#pragma once
#include <algorithm>
#include <vector>

#include "tensor.h"

struct LowRank {
  static constexpr const char* NAME = "LowRank";
  static constexpr size_t REQUIRED_INPUTS = 5, INPUTS = 5, OUTPUTS = 1;
  static constexpr int TYPES[] = {FLOAT, FLOAT, FLOAT, FLOAT, FLOAT};
  static constexpr size_t MOST = 96;  // rows that are computed together

  const Api& api;
  size_t k = 0, columns = 0, n = 0;
  float *a = nullptr, *b = nullptr;

  explicit LowRank(const Api& api) : api(api) {}
  ~LowRank() { std::free(a), std::free(b); }

  Status* create(const KernelInfo* info) {
    Tensor first, second;
    TRY(constant(api, info, 2, &first));
    TRY(constant(api, info, 3, &second));
    bool fits = first.sides.size() == 2 && second.sides.size() == 2 && first.sides[1] == second.sides[0];
    if (!fits || first.type != FLOAT || second.type != FLOAT) return api.fail("octavo: A and B do not fit");
    k = first.sides[0], columns = first.sides[1], n = second.sides[1];
    a = (float*)packed((const uint32_t*)first.data, k, columns, NARROW, false);
    b = (float*)packed((const uint32_t*)second.data, columns, n, products()->width, false);
    return nullptr;
  }

  struct Row {
    size_t first, last, number;  // the columns of A that it reads
    bool beside(const Row& other) const { return first == other.first && last == other.last; }
  };

  struct Job {
    const LowRank& kernel;
    std::vector<Row> rows;       // those of the same columns together
    std::vector<size_t> starts;  // of what is computed together, and the end
    std::vector<const float*> x, factors, there;
    std::vector<float*> out;
  };

  Status* compute(KernelContext* context) {
    Tensor there, x, factors;
    TRY(read(context, 0, &there));
    TRY(read(context, 1, &x));
    TRY(read(context, 4, &factors));
    size_t rows = x.count() / k, batch = factors.count() / columns;
    bool fits = rows * k == (size_t)x.count() && rows * n == (size_t)there.count() && batch && rows % batch == 0;
    if (!fits) return api.fail("octavo: rows, adapters and matrices do not fit");
    Value* value;
    float* out;
    TRY(api.output(context, 0, there.sides.data(), there.sides.size(), &value));
    TRY(api.data(value, (void**)&out));
    Job job{*this, {}, {}, {}, {}, {}, {}};
    job.rows.reserve(rows);
    for (size_t i = 0; i < batch; i++) own((const float*)factors.data + i * columns, rows / batch, &job.rows);
    std::stable_sort(job.rows.begin(), job.rows.end(), [](const Row& one, const Row& other) {
      return one.first != other.first ? one.first < other.first : one.last < other.last;
    });
    for (size_t i = 0; i < rows; i++) {
      const Row& row = job.rows[i];
      if (!i || !row.beside(job.rows[i - 1]) || i - job.starts.back() == MOST) job.starts.push_back(i);
      job.x.push_back((const float*)x.data + row.number * k);
      job.factors.push_back((const float*)factors.data + row.number / (rows / batch) * columns + row.first);
      job.there.push_back((const float*)there.data + row.number * n);
      job.out.push_back(out + row.number * n);
    }
    job.starts.push_back(rows);
    return api.parallel(context, [](void* data, size_t part) { run(*(Job*)data, part); }, job.starts.size() - 1, &job);
  }

  Status* read(KernelContext* context, size_t i, Tensor* out) {
    const Value* value;
    TRY(api.input(context, i, &value));
    return out->read(api, value);
  }

  // The rows of one entry of the batch: from the first to the last factor that is not zero.
  void own(const float* factors, size_t count, std::vector<Row>* out) {
    size_t first = 0, last = columns;
    while (first < last && factors[first] == 0) first++;
    while (last > first && factors[last - 1] == 0) last--;
    if (first == last) first = last = 0;
    for (size_t i = 0; i < count; i++) out->push_back({first, last, out->size()});
  }

  static void run(Job& job, size_t part) {
    static thread_local std::vector<float> low, x;
    const LowRank& kernel = job.kernel;
    size_t start = job.starts[part], m = job.starts[part + 1] - start, k = kernel.k;
    const Row& row = job.rows[start];
    x.resize(m * k);
    products()->pack(&job.x[start], m, k, x.data(), 0, tiles(m));
    size_t skipped = row.first / NARROW, panels = (row.last + NARROW - 1) / NARROW - skipped;
    low.resize(m * panels * NARROW);
    Addition p{x.data(), kernel.a + skipped * k * NARROW, kernel.b + row.first * products()->width, m, k, panels,
               row.first - skipped * NARROW, row.last - row.first, kernel.columns * products()->width, kernel.n,
               &job.factors[start], &job.there[start], &job.out[start], low.data()};
    products()->addition(p);
  }
};
