// GroupQueryAttention with rotary embedding, in float32, over a cache that is written in place. Octavo's loader puts it
// where a graph has ONNX Runtime's; attributes, inputs and outputs are the same.
#pragma once
#include <algorithm>
#include <vector>

#include "tensor.h"

struct Attention {
  static constexpr const char* NAME = "GroupQueryAttention";
  static constexpr size_t REQUIRED_INPUTS = 9, INPUTS = 9, OUTPUTS = 3;
  static constexpr size_t MOST = 96;  // rows of queries that are computed together
  static constexpr int TYPES[] = {FLOAT, FLOAT, FLOAT, FLOAT, FLOAT, INT32, INT32, FLOAT, FLOAT};

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
    Tensor q, k, v, keys, values, lengths, cos, sin;
    float *out, *new_keys, *new_values;
  };

  Status* compute(KernelContext* context) {
    Job job{*this, {}, {}, {}, {}, {}, {}, {}, {}, nullptr, nullptr, nullptr};
    Tensor* inputs[] = {&job.q, &job.k, &job.v, &job.keys, &job.values, &job.lengths, nullptr, &job.cos, &job.sin};
    for (size_t i = 0; i < INPUTS; i++) {
      const Value* value;
      TRY(api.input(context, i, &value));
      if (inputs[i]) TRY(inputs[i]->read(api, value));
    }
    if (!fits(job)) return api.fail("octavo: queries, keys, values and their cache do not fit");
    TRY(output(context, 0, job.q, &job.out));
    TRY(output(context, 1, job.keys, &job.new_keys));
    TRY(output(context, 2, job.values, &job.new_values));
    size_t units = job.q.sides[0] * kv_heads;
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
    alike = alike && q[2] == heads * dim && k[2] == kv_heads * dim && job.lengths.count() == q[0];
    if (!alike) return false;
    for (int64_t i = 0; i < q[0]; i++) longest = std::max<int64_t>(longest, ((const int32_t*)job.lengths.data)[i] + 1);
    return longest <= past[2] && longest <= cos[0];
  }

  // One sequence and the heads that share one of its keys and values.
  static void run(Job& job, size_t unit) {
    const Attention& kernel = job.kernel;
    size_t kv_heads = kernel.kv_heads, shared = kernel.heads / kv_heads, entry = unit / kv_heads, head = unit % kv_heads;
    size_t padded = job.q.sides[1], length = job.keys.sides[2], dim = job.keys.sides[3];
    size_t total = std::max(((const int32_t*)job.lengths.data)[entry] + 1, 0), past = total > padded ? total - padded : 0;
    size_t cache = unit * length * dim, q = (entry * padded * kernel.heads + head * shared) * dim;
    size_t kv = (entry * padded * kv_heads + head) * dim;
    const float *keys = (const float*)job.keys.data + cache, *values = (const float*)job.values.data + cache;
    if (job.new_keys + cache != keys) std::copy_n(keys, past * dim, job.new_keys + cache);
    if (job.new_values + cache != values) std::copy_n(values, past * dim, job.new_values + cache);
    static thread_local std::vector<float> scratch;
    Attend p{(const float*)job.q.data + q, (const float*)job.k.data + kv, (const float*)job.v.data + kv,
             (size_t)kernel.heads * dim, kv_heads * dim, job.new_keys + cache, job.new_values + cache,
             (const float*)job.cos.data, (const float*)job.sin.data, (size_t)job.cos.sides[1], job.out + q,
             past, total - past, padded, shared, dim, kernel.scale ? kernel.scale : 1 / __builtin_sqrtf(dim),
             kernel.cap, kernel.window > 0 ? (size_t)kernel.window : 0, 0, nullptr};
    p.together = std::max<size_t>(1, std::min(p.tokens, MOST / shared));
    scratch.resize(p.room());
    p.scratch = scratch.data();
    products()->attend(p);
  }
};
