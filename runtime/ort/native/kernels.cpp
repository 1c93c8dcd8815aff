// Parts of a decoder as ONNX Runtime custom ops, some of which take the place of its own.
#include <exception>
#include <memory>

#include "attention.h"
#include "blocks.h"
#include "linear.h"
#include "lowrank.h"

namespace {
#define EXPORTED extern "C" __attribute__((visibility("default")))

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
  Made() : Op{} {
    version = API_VERSION;
    name = [](const Op*) { return Kernel::NAME; };
    provider = [](const Op*) -> const char* { return "CPUExecutionProvider"; };
    inputs = [](const Op*) { return Kernel::INPUTS; };
    input_type = [](const Op*, size_t i) { return Kernel::TYPES[i]; };
    outputs = [](const Op*) { return Kernel::OUTPUTS; };
    output_type = [](const Op*, size_t) -> int { return FLOAT; };
    input_kind = [](const Op*, size_t i) -> int { return i < Kernel::REQUIRED_INPUTS ? REQUIRED : OPTIONAL; };
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
  static const Made<Linear> linear;
  static const Made<Blocks> blocks;
  static const Made<LowRank> lowrank;
  static const Made<Attention> attention;
  static Domain *onnx, *microsoft, *octavo;
  static Status* const failed = [&]() -> Status* {  // once in a process, whoever comes first
    TRY(api.create_domain("", &onnx));
    TRY(api.add_op(onnx, &linear));
    TRY(api.create_domain("octavo", &octavo));
    TRY(api.add_op(octavo, &lowrank));
    TRY(api.add_op(octavo, &attention));
    TRY(api.create_domain("com.microsoft", &microsoft));
    return api.add_op(microsoft, &blocks);
  }();
  if (failed) return api.fail("octavo: ONNX Runtime does not take the kernels");
  TRY(api.add_domain(options, onnx));
  TRY(api.add_domain(options, octavo));
  return api.add_domain(options, microsoft);
}
