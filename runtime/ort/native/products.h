// What one set of instructions offers: products of a few or many rows with a matrix in panels.
#pragma once
#include <cstddef>
#include <cstdint>

constexpr size_t TALL = 6;      // rows of a tile at most
constexpr size_t TOGETHER = 16;  // tiles that pass over a part of a matrix one after the other
constexpr size_t GROUP = 4;      // panels that are read at once
constexpr size_t LINE = 64;      // bytes that memory gives at once

inline size_t least(size_t one, size_t other) { return one < other ? one : other; }

// Rows are packed in tiles: of a tile's rows the numbers of one k lie side by side.
inline size_t tiles(size_t m) { return (m + TALL - 1) / TALL; }
inline size_t tile_start(size_t m, size_t t) { return m * t / tiles(m); }

struct Dense {  // rows [m, k], packed, times panels into out [m, n]; panels [ceil(n / width)][k][width], zeros beyond n
  const float* rows;
  const void* panels;
  float* out;
  size_t m, k, n;
};

constexpr size_t NARROW = 16;  // columns of an addition's first panels

struct Addition {  // out = there + (rows * A, times factors) * B, for rows that read the same columns of A
  const float* rows;              // [m, k], packed
  const float* a;                 // A's panels of these columns, [panels][k][NARROW]
  const float* b;                 // B's rows of these columns in its first panel; in the next, `stride` further on
  size_t m, k, panels, skip, depth, stride, n;  // of a panel's columns `skip` come before the `depth` that are read
  const float* const* factors;    // each row's, [depth]
  const float* const* there;      // each row's, [n]
  float* const* out;
  float* low;                     // [m, panels * NARROW], to be written
};

struct Attend {  // tokens of a sequence, for `heads` heads of queries that share keys and values
  const float *q, *k, *v;      // the first token's; the next are strides further on
  size_t q_stride, kv_stride;
  float *keys, *values;        // the cache, [., dim], `past` tokens of it there
  const float *cos, *sin;      // [positions, half]
  size_t half;
  float* out;                  // as q
  size_t length;               // tokens from one head's cache to the next one's
  size_t past, tokens, padded, heads, dim;  // `tokens` are real, of `padded`
  float scale, cap;            // no cap: 0
  size_t window;               // keys that a query sees; all: 0
  size_t together;             // tokens that are computed together
  float* scratch;              // of as many numbers as `room` says

  size_t room() const {
    return together * heads * (2 * dim + (past + tokens + NARROW - 1) / NARROW * NARROW) + NARROW * dim;
  }
};

// A block of 16 columns x 32 of k: packed weights, 16 scales, 16 zero points (a byte each).
template <int BITS>
constexpr size_t BLOCK = 64 * BITS + 64 + 16;

struct Few {  // rows quantized in blocks of 32: `q` [m, blocks * 32], `scale` and `sum` [m, blocks]
  const int8_t* q;
  const float* scale;
  const int32_t* sum;
  const uint8_t* panels;
  float* out;
  size_t m, blocks, n;
};

struct Products {
  const char* name;
  size_t width;                                                    // columns of a dense panel
  void (*pack)(const float* const* rows, size_t m, size_t k, float* to, size_t first, size_t last);  // of the tiles
  void (*dense)(const Dense&, size_t first, size_t last);          // panels of float32
  void (*half)(const Dense&, size_t first, size_t last);           // panels of bfloat16, in pairs half a vector apart
  void (*addition)(const Addition&);
  void (*attend)(const Attend&);
  void (*attend_forks)(const Attend*, size_t count, size_t common);
  size_t vector;                                                   // floats of a vector
  void (*few)(const Few&, int bits, size_t first, size_t last);    // panels of 16 columns
  void (*quantize)(const float* row, size_t k, int8_t* q, float* scale, int32_t* sum);  // one row
};

extern const Products AVX2, AVX512;
