// The few parts of ONNX Runtime's C interface that the kernels use, by their place in its table of functions, which
// only ever grows (onnxruntime_c_api.cc asserts these places).
// Copyright (c) Microsoft Corporation. Licensed under the MIT License.
#pragma once
#include <cstddef>
#include <cstdint>

struct Status;  // null where all is well
struct SessionOptions;
struct Domain;
struct KernelInfo;
struct KernelContext;
struct Value;
struct ShapeInfo;
struct Op;

struct Api {
  const void* table[412];

  template <class F>
  F at(int place) const { return reinterpret_cast<F>(const_cast<void*>(table[place])); }

  Status* fail(const char* why) const { return at<Status* (*)(int, const char*)>(0)(1, why); }
  Status* create_domain(const char* name, Domain** out) const {
    return at<Status* (*)(const char*, Domain**)>(26)(name, out);
  }
  Status* add_op(Domain* domain, const Op* op) const { return at<Status* (*)(Domain*, const Op*)>(27)(domain, op); }
  Status* add_domain(SessionOptions* o, Domain* d) const { return at<Status* (*)(SessionOptions*, Domain*)>(28)(o, d); }
  Status* data(Value* value, void** out) const { return at<Status* (*)(Value*, void**)>(51)(value, out); }
  Status* element_type(const ShapeInfo* s, int* out) const {
    return at<Status* (*)(const ShapeInfo*, int*)>(60)(s, out);
  }
  Status* rank(const ShapeInfo* s, size_t* out) const { return at<Status* (*)(const ShapeInfo*, size_t*)>(61)(s, out); }
  Status* sides(const ShapeInfo* s, int64_t* out, size_t n) const {
    return at<Status* (*)(const ShapeInfo*, int64_t*, size_t)>(62)(s, out, n);
  }
  Status* shape(const Value* value, ShapeInfo** out) const {
    return at<Status* (*)(const Value*, ShapeInfo**)>(65)(value, out);
  }
  Status* attribute(const KernelInfo* info, const char* name, float* out) const {
    return at<Status* (*)(const KernelInfo*, const char*, float*)>(85)(info, name, out);
  }
  Status* attribute(const KernelInfo* info, const char* name, int64_t* out) const {
    return at<Status* (*)(const KernelInfo*, const char*, int64_t*)>(86)(info, name, out);
  }
  Status* input(const KernelContext* c, size_t i, const Value** out) const {
    return at<Status* (*)(const KernelContext*, size_t, const Value**)>(90)(c, i, out);
  }
  Status* output(KernelContext* c, size_t i, const int64_t* sides, size_t n, Value** out) const {
    return at<Status* (*)(KernelContext*, size_t, const int64_t*, size_t, Value**)>(91)(c, i, sides, n, out);
  }
  void release(Status* status) const { at<void (*)(Status*)>(93)(status); }
  void release(ShapeInfo* shape) const { at<void (*)(ShapeInfo*)>(99)(shape); }
  Status* input_count(const KernelInfo* info, size_t* out) const {
    return at<Status* (*)(const KernelInfo*, size_t*)>(230)(info, out);
  }
  Status* constant(const KernelInfo* info, size_t i, int* is, const Value** out) const {
    return at<Status* (*)(const KernelInfo*, size_t, int*, const Value**)>(249)(info, i, is, out);
  }
  Status* parallel(const KernelContext* c, void (*f)(void*, size_t), size_t total, void* data) const {
    typedef Status* (*Parallel)(const KernelContext*, void (*)(void*, size_t), size_t, size_t, void*);
    return at<Parallel>(274)(c, f, total, 0, data);
  }
};

struct ApiBase {
  const Api* (*get)(uint32_t version);
  const char* (*version)();
};

constexpr uint32_t API_VERSION = 17;  // of ONNX Runtime 1.17, the first with all of the above
enum { FLOAT = 1, UINT8 = 2, INT32 = 6 };
enum { REQUIRED = 0, OPTIONAL = 1 };

struct Op {
  uint32_t version;
  void* (*create)(const Op*, const Api*, const KernelInfo*);
  const char* (*name)(const Op*);
  const char* (*provider)(const Op*);
  int (*input_type)(const Op*, size_t);
  size_t (*inputs)(const Op*);
  int (*output_type)(const Op*, size_t);
  size_t (*outputs)(const Op*);
  void (*compute)(void*, KernelContext*);
  void (*destroy)(void*);
  int (*input_kind)(const Op*, size_t);
  int (*output_kind)(const Op*, size_t);
  int (*input_memory)(const Op*, size_t);
  int (*variadic_input_least)(const Op*);
  int (*variadic_input_alike)(const Op*);
  int (*variadic_output_least)(const Op*);
  int (*variadic_output_alike)(const Op*);
  Status* (*create2)(const Op*, const Api*, const KernelInfo*, void**);
  Status* (*compute2)(void*, KernelContext*);
  Status* (*infer)(const Op*, void*);
  int (*start_version)(const Op*);
  int (*end_version)(const Op*);
  void* later[4];
};
