// GroupQueryAttention with rotary embedding, in float32, over a cache that is written in place. Octavo's loader puts it
// where a graph has ONNX Runtime's; attributes, inputs and outputs are the same, but for one input: each row's family,
// by number, and how many first tokens its rows have in common. Number 0 is no family.
#pragma once
#include <algorithm>
#include <vector>

#include "tensor.h"

struct Attention {
  static constexpr const char* NAME = "GroupQueryAttention";
  static constexpr size_t REQUIRED_INPUTS = 10, INPUTS = 10, OUTPUTS = 3;
  static constexpr size_t MOST = 96;  // rows of queries that are computed together
  static constexpr int TYPES[] = {FLOAT, FLOAT, FLOAT, FLOAT, FLOAT, INT32, INT32, FLOAT, FLOAT, INT32};

  const Api& api;
  int64_t heads = 0, kv_heads = 0, window = -1;
  float scale = 0, cap = 0;

  explicit Attention(const Api& api) : api(api) {}

  Status* create(const KernelInfo* info) {
    int64_t rotary;
    TRY(api.attribute(info, "num_heads", &heads));
    TRY(api.attribute(info, "kv_num_heads", &kv_heads));
    TRY(api.attribute(info, "local_window_size", &window));
    TRY(api.attribute(info, "do_rotary", &rotary));
    TRY(api.attribute(info, "scale", &scale));
    TRY(api.attribute(info, "softcap", &cap));
    bool fits = rotary == 1 && kv_heads > 0 && heads % kv_heads == 0;
    return fits ? nullptr : api.fail("octavo: attention of another kind");
  }

  struct Job {
    const Attention& kernel;
    Tensor q, k, v, keys, values, lengths, cos, sin, forks;
    std::vector<std::vector<size_t>> families;  // rows that are computed together
    float *out, *new_keys, *new_values;
  };

  Status* compute(KernelContext* context) {
    Job job{*this, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, nullptr, nullptr, nullptr};
    Tensor* inputs[] = {&job.q, &job.k, &job.v, &job.keys, &job.values, &job.lengths, nullptr, &job.cos, &job.sin,
                        &job.forks};
    for (size_t i = 0; i < INPUTS; i++) {
      const Value* value;
      TRY(api.input(context, i, &value));
      if (inputs[i]) TRY(inputs[i]->read(api, value));
    }
    if (!fits(job)) return api.fail("octavo: queries, keys, values and their cache do not fit");
    TRY(output(context, 0, job.q, &job.out));
    TRY(output(context, 1, job.keys, &job.new_keys));
    TRY(output(context, 2, job.values, &job.new_values));
    gather(&job);
    size_t units = job.families.size() * kv_heads;
    return api.parallel(context, [](void* data, size_t unit) { run(*(Job*)data, unit); }, units, &job);
  }

  Status* output(KernelContext* context, size_t i, const Tensor& like, float** out) {
    Value* value;
    TRY(api.output(context, i, like.sides.data(), like.sides.size(), &value));
    return api.data(value, (void**)out);
  }

  bool fits(const Job& job) const {
    const auto &q = job.q.sides, &k = job.k.sides, &past = job.keys.sides, &cos = job.cos.sides;
    if (q.size() != 3 || k.size() != 3 || past.size() != 4 || cos.size() != 2) return false;
    int64_t dim = past[3], longest = 0;
    bool alike = k == job.v.sides && past == job.values.sides && cos == job.sin.sides && k[0] == q[0] && k[1] == q[1];
    alike = alike && past[0] == q[0] && past[1] == kv_heads && dim % 16 == 0 && 2 * cos[1] <= dim;
    alike = alike && q[2] == heads * dim && k[2] == kv_heads * dim && job.lengths.count() == q[0] &&
            job.forks.count() == 2 * q[0];
    if (!alike) return false;
    for (int64_t i = 0; i < q[0]; i++) longest = std::max<int64_t>(longest, ((const int32_t*)job.lengths.data)[i] + 1);
    return longest <= past[2] && longest <= cos[0];
  }

  // Only rows that read one token are computed together, and only where they see all that they have in common.
  void gather(Job* job) const {
    const int32_t *forks = (const int32_t*)job->forks.data, *held = (const int32_t*)job->lengths.data;
    size_t most = MOST * kv_heads / heads;
    for (size_t row = 0; row < (size_t)job->q.sides[0]; row++) {
      const int32_t* own = forks + 2 * row;
      bool forked = job->q.sides[1] == 1 && window <= 0 && own[0] > 0 && own[1] > 0 && own[1] <= held[row];
      auto fits = [&](const std::vector<size_t>& family) {
        const int32_t* first = forks + 2 * family[0];
        return family.size() < most && own[0] == first[0] && own[1] == first[1] && own[1] <= held[family[0]];
      };
      auto end = job->families.end(), found = forked ? std::find_if(job->families.begin(), end, fits) : end;
      if (found != end) found->push_back(row);
      else job->families.push_back({row});
    }
  }

  // The rows of a family, and the heads that share one of their keys and values.
  static void run(Job& job, size_t unit) {
    static thread_local std::vector<float> scratch;
    static thread_local std::vector<Attend> each;
    const auto& family = job.families[unit / job.kernel.kv_heads];
    each.clear();
    size_t room = 0;
    for (size_t row : family) {
      each.push_back(of(job, row, unit % job.kernel.kv_heads));
      room = std::max(room, each.back().room());
    }
    if (scratch.size() < room * each.size()) scratch.resize(room * each.size());
    for (Attend& p : each) p.scratch = scratch.data();
    if (each.size() == 1) products()->attend(each[0]);
    else products()->attend_forks(each.data(), each.size(), ((const int32_t*)job.forks.data)[2 * family[0] + 1]);
  }

  static Attend of(Job& job, size_t row, size_t head) {
    const Attention& kernel = job.kernel;
    size_t kv_heads = kernel.kv_heads, shared = kernel.heads / kv_heads, unit = row * kv_heads + head;
    size_t padded = job.q.sides[1], length = job.keys.sides[2], dim = job.keys.sides[3];
    size_t total = std::max(((const int32_t*)job.lengths.data)[row] + 1, 0), past = total > padded ? total - padded : 0;
    size_t cache = unit * length * dim, q = (row * padded * kernel.heads + head * shared) * dim;
    size_t kv = (row * padded * kv_heads + head) * dim;
    const float *keys = (const float*)job.keys.data + cache, *values = (const float*)job.values.data + cache;
    if (job.new_keys + cache != keys) std::copy_n(keys, past * dim, job.new_keys + cache);
    if (job.new_values + cache != values) std::copy_n(values, past * dim, job.new_values + cache);
    Attend p{(const float*)job.q.data + q, (const float*)job.k.data + kv, (const float*)job.v.data + kv,
             (size_t)kernel.heads * dim, kv_heads * dim, job.new_keys + cache, job.new_values + cache,
             (const float*)job.cos.data, (const float*)job.sin.data, (size_t)job.cos.sides[1], job.out + q,
             length, past, total - past, padded, shared, dim, kernel.scale ? kernel.scale : 1 / __builtin_sqrtf(dim),
             kernel.cap, kernel.window > 0 ? (size_t)kernel.window : 0, 0, nullptr};
    p.together = std::max<size_t>(1, std::min(p.tokens, MOST / shared));
    return p;
  }
};
