// Linear layers of a decoder as ONNX Runtime custom ops: they take the place of its own MatMul and MatMulNBits.
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <type_traits>
#include <vector>

#include "ort.h"
#include "products.h"

namespace {
#define EXPORTED extern "C" __attribute__((visibility("default")))
#define TRY(call) if (Status* status = (call)) return status

const Products* products() {
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

Status* constant(const Api& api, const KernelInfo* info, size_t i, Tensor* out) {
  int is = 0;
  const Value* value = nullptr;
  TRY(api.constant(info, i, &is, &value));
  if (!is || !value) return api.fail("octavo: a weight is not a constant");
  return out->read(api, value);
}

void* memory(size_t bytes) {
  void* found = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (!found) throw std::bad_alloc();
  return found;
}

struct Linear {
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
    pack((const uint32_t*)b.data);
    return nullptr;
  }

  void pack(const uint32_t* b) {
    size_t width = products()->width, lanes = products()->vector, count = (n + width - 1) / width;
    uint32_t low = 0;
    for (size_t i = 0; i < k * n; i++) low |= b[i];
    half = !(low & 0xffff);  // a widened bfloat16, every one
    panels = memory(count * width * k * (half ? 2 : 4));
    for (size_t p = 0; p < count; p++)
      for (size_t i = 0; i < k; i++)
        for (size_t j = 0; j < width; j++) {
          size_t column = p * width + j, row = (p * k + i) * width;
          uint32_t bits = column < n ? b[i * n + column] : 0;
          if (!half) ((uint32_t*)panels)[row + j] = bits;
          else ((uint16_t*)panels)[row + j / (2 * lanes) * 2 * lanes + j % lanes * 2 + j / lanes % 2] = bits >> 16;
        }
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

struct Blocks {
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

template <class Call>
Status* caught(const Api& api, Call call) {
  try {
    return call();
  } catch (const std::exception& error) {
    return api.fail(error.what());
  }
}

template <class Kernel>
struct Made : Op {
  const char* called;
  size_t count;

  Made(const char* called, size_t count) : Op{}, called(called), count(count) {
    version = API_VERSION;
    name = [](const Op* op) { return static_cast<const Made*>(op)->called; };
    provider = [](const Op*) -> const char* { return "CPUExecutionProvider"; };
    inputs = [](const Op* op) { return static_cast<const Made*>(op)->count; };
    input_type = [](const Op*, size_t i) -> int {
      const int types[] = {FLOAT, UINT8, FLOAT, UINT8, 6, FLOAT};
      return std::is_same<Kernel, Linear>::value ? (int)FLOAT : types[i];
    };
    outputs = [](const Op*) -> size_t { return 1; };
    output_type = [](const Op*, size_t) -> int { return FLOAT; };
    input_kind = [](const Op*, size_t i) -> int { return i < 3 ? REQUIRED : OPTIONAL; };
    output_kind = [](const Op*, size_t) -> int { return REQUIRED; };
    input_memory = [](const Op*, size_t) { return 0; };
    start_version = [](const Op*) { return 1; };
    end_version = [](const Op*) { return 0x7fffffff; };
    create2 = [](const Op*, const Api* api, const KernelInfo* info, void** out) -> Status* {
      return caught(*api, [&] {
        std::unique_ptr<Kernel> kernel(new Kernel(*api));
        TRY(kernel->create(info));
        *out = kernel.release();
        return (Status*)nullptr;
      });
    };
    compute2 = [](void* kernel, KernelContext* context) {
      return caught(((Kernel*)kernel)->api, [&] { return ((Kernel*)kernel)->compute(context); });
    };
    destroy = [](void* kernel) { delete (Kernel*)kernel; };
  }
};
}  // namespace

EXPORTED const char* octavo_kernels() { return products() ? products()->name : ""; }

EXPORTED Status* RegisterCustomOps(SessionOptions* options, const ApiBase* base) {
  const Api& api = *base->get(API_VERSION);
  if (!products()) return nullptr;
  static const Made<Linear> linear("MatMul", 2);
  static const Made<Blocks> blocks("MatMulNBits", 6);
  static Domain *onnx, *microsoft;
  static Status* const failed = [&]() -> Status* {  // once in a process, whoever comes first
    TRY(api.create_domain("", &onnx));
    TRY(api.add_op(onnx, &linear));
    TRY(api.create_domain("com.microsoft", &microsoft));
    return api.add_op(microsoft, &blocks);
  }();
  if (failed) return api.fail("octavo: ONNX Runtime does not take the kernels");
  TRY(api.add_domain(options, onnx));
  return products()->few ? api.add_domain(options, microsoft) : nullptr;
}
