// Products of float32 rows with float32 or bfloat16 panels. Every element is one chain of fused multiply-adds over k in
// order, so that a row's result does not depend on what rows are beside it. Included once per set of instructions,
// which says V (a vector of floats), spread, LANES and WIDE (vectors of a panel).
constexpr size_t WIDTH = LANES * WIDE;
constexpr size_t DEPTH = 256;  // of k, so that a panel's part stays near while many rows pass over it

typedef uint32_t U __attribute__((vector_size(sizeof(V))));
typedef V Unaligned __attribute__((aligned(4)));

struct Single {
  typedef float Stored;
  template <int W>
  static inline void load(const float* at, V* to) {
    for (int j = 0; j < W; j++) to[j] = *(const Unaligned*)(at + j * LANES);
  }
};

struct Half {  // a pair of elements in each 32 bits: widening is a shift and a mask
  typedef uint16_t Stored;
  template <int W>
  static inline void load(const uint16_t* at, V* to) {
    for (int j = 0; j < W; j += 2) {
      U both = *(const U*)(at + j * LANES);
      to[j] = (V)(both << 16);
      to[j + 1] = (V)(both & 0xffff0000u);
    }
  }
};

// What a tile asks memory for while it computes: a line of each of some streams with every so many steps of k.
struct Ahead {
  const char* next = nullptr;
  size_t apart = 0, streams = 0, every = SIZE_MAX;
};

// M rows, the numbers of one k side by side if they are PACKED, times W vectors of each of S panels that lie `apart`.
template <class Form, int W, int M, int S, bool PACKED>
static inline void tile(const float* a, size_t lda, const typename Form::Stored* b, size_t apart, size_t depth, float* c,
                        size_t ldc, bool more, Ahead ahead, size_t stride = W * LANES) {
  V sum[M][S * W];
  for (int i = 0; i < M; i++)
    for (int j = 0; j < S * W; j++) sum[i][j] = more ? (V) * (const Unaligned*)(c + i * ldc + j * LANES) : V{};
  for (size_t k = 0; k < depth;) {
    for (size_t s = 0; s < ahead.streams; s++) __builtin_prefetch(ahead.next + s * ahead.apart, 0, 2);
    ahead.next += LINE;
    for (size_t end = ahead.every < depth - k ? k + ahead.every : depth; k < end; k++, b += stride)
      for (int s = 0; s < S; s++) {
        V w[W];
        Form::template load<W>(b + s * apart, w);
        for (int i = 0; i < M; i++) {
          V x = spread(PACKED ? a[k * M + i] : a[i * lda + k]);
          for (int j = 0; j < W; j++) sum[i][s * W + j] = x * w[j] + sum[i][s * W + j];
        }
      }
  }
  for (int i = 0; i < M; i++)
    for (int j = 0; j < S * W; j++) *(Unaligned*)(c + i * ldc + j * LANES) = sum[i][j];
}

template <class Form, int W, bool PACKED>
static void rows(int m, const float* a, size_t lda, const typename Form::Stored* b, size_t depth, float* c, size_t ldc,
                 bool more, Ahead ahead, size_t stride = W * LANES) {
  switch (m) {
    case 1: return tile<Form, W, 1, 1, PACKED>(a, lda, b, 0, depth, c, ldc, more, ahead, stride);
    case 2: return tile<Form, W, 2, 1, PACKED>(a, lda, b, 0, depth, c, ldc, more, ahead, stride);
    case 3: return tile<Form, W, 3, 1, PACKED>(a, lda, b, 0, depth, c, ldc, more, ahead, stride);
    case 4: return tile<Form, W, 4, 1, PACKED>(a, lda, b, 0, depth, c, ldc, more, ahead, stride);
    case 5: return tile<Form, W, 5, 1, PACKED>(a, lda, b, 0, depth, c, ldc, more, ahead, stride);
    default: return tile<Form, W, TALL, 1, PACKED>(a, lda, b, 0, depth, c, ldc, more, ahead, stride);
  }
}

static inline void transpose(__m256* r) {  // 8 rows of 8
  __m256 s[8];
  for (int i = 0; i < 8; i += 2) s[i] = _mm256_unpacklo_ps(r[i], r[i + 1]), s[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  for (int i = 0; i < 8; i += 4)
    for (int j = 0; j < 2; j++) {
      r[i + 2 * j] = _mm256_shuffle_ps(s[i + j], s[i + j + 2], 0x44);
      r[i + 2 * j + 1] = _mm256_shuffle_ps(s[i + j], s[i + j + 2], 0xee);
    }
  for (int i = 0; i < 4; i++) s[i] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
  for (int i = 0; i < 4; i++) s[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
  for (int i = 0; i < 8; i++) r[i] = s[i];
}

template <int M>
static void side_by_side(const float* const* from, size_t k, float* to) {
  size_t j = 0;
  for (; M > 1 && j + 16 <= k; j += 8) {  // whole vectors are written: what is beyond 8 M numbers, the next ones cover
    __m256 r[8];
    for (int i = 0; i < 8; i++) r[i] = i < M ? _mm256_loadu_ps(from[i] + j) : _mm256_setzero_ps();
    transpose(r);
    for (int i = 0; i < 8; i++) _mm256_storeu_ps(to + (j + i) * M, r[i]);
  }
  for (; j < k; j++)
    for (int i = 0; i < M; i++) to[j * M + i] = from[i][j];
}

static void pack(const float* const* from, size_t m, size_t k, float* to, size_t first, size_t last) {
  for (size_t t = first; t < last; t++) {
    size_t i = tile_start(m, t), count = tile_start(m, t + 1) - i;
    from += i, to += i * k;
    switch (count) {
      case 1: side_by_side<1>(from, k, to); break;
      case 2: side_by_side<2>(from, k, to); break;
      case 3: side_by_side<3>(from, k, to); break;
      case 4: side_by_side<4>(from, k, to); break;
      case 5: side_by_side<5>(from, k, to); break;
      default: side_by_side<TALL>(from, k, to);
    }
    from -= i, to -= i * k;
  }
}

// M rows with some panels, S of them at a time: memory gives several streams sooner than one.
template <class Form, int M, int S>
static void few_rows(const Dense& p, const typename Form::Stored* b, size_t panels, float* c) {
  size_t apart = p.k * WIDTH;
  for (; panels >= S; panels -= S, b += S * apart, c += S * WIDTH)
    tile<Form, WIDE, M, S, true>(p.rows, 0, b, apart, p.k, c, p.n, false, {});
  for (; panels; panels--, b += apart, c += WIDTH)
    tile<Form, WIDE, M, 1, true>(p.rows, 0, b, 0, p.k, c, p.n, false, {});
}

// Rows of the tiles [first, last) with one part of k of some panels; each tile asks for its share of `next`.
template <class Form>
static void part(const Dense& p, size_t first, size_t last, size_t k, size_t depth, const typename Form::Stored* b,
                 const typename Form::Stored* next, size_t panels, float* c) {
  size_t apart = p.k * WIDTH, bytes = apart * sizeof(*b), all = (last - first) * panels;
  size_t lines = (depth * WIDTH * sizeof(*b) / LINE + all - 1) / all, every = (depth + lines) / (lines + 1);
  const char* asked = (const char*)next;
  for (size_t q = 0; q < panels; q++)
    for (size_t t = first; t < last; t++, asked += lines * LINE) {
      size_t i = tile_start(p.m, t), m = tile_start(p.m, t + 1) - i;
      rows<Form, WIDE, true>(m, p.rows + i * p.k + k * m, 0, b + q * apart + k * WIDTH, depth, c + i * p.n + q * WIDTH,
                             p.n, k > 0, {asked, bytes, panels, every});
    }
}

template <class Form>
static void many_rows(const Dense& p, const typename Form::Stored* b, size_t panels, float* c) {
  for (size_t first = 0, last; first < tiles(p.m); first = last) {
    last = least(first + TOGETHER, tiles(p.m));
    for (size_t k = 0; k < p.k; k += DEPTH) {
      auto next = k + DEPTH < p.k ? b + (k + DEPTH) * WIDTH : last < tiles(p.m) ? b : b + panels * p.k * WIDTH;
      part<Form>(p, first, last, k, least(DEPTH, p.k - k), b, next, panels, c);
    }
  }
}

template <class Form>
static void group(const Dense& p, const typename Form::Stored* b, size_t panels, float* c) {
  switch (p.m) {
    case 1: return few_rows<Form, 1, 4>(p, b, panels, c);
    case 2: return few_rows<Form, 2, 2>(p, b, panels, c);
    case 3: return few_rows<Form, 3, 2>(p, b, panels, c);
    default: return many_rows<Form>(p, b, panels, c);
  }
}

template <class Form>
static void product(const Dense& p, size_t first, size_t last) {
  for (size_t each = first; each < last; each += GROUP) {
    const auto* b = (const typename Form::Stored*)p.panels + each * p.k * WIDTH;
    size_t panels = least(GROUP, last - each), start = each * WIDTH, columns = least(panels * WIDTH, p.n - start);
    if (columns == panels * WIDTH) {
      group<Form>(p, b, panels, p.out + start);
    } else {
      Dense whole = p;
      whole.n = panels * WIDTH;
      float* out = new float[p.m * whole.n];
      group<Form>(whole, b, panels, out);
      for (size_t i = 0; i < p.m; i++)
        for (size_t j = 0; j < columns; j++) p.out[i * p.n + start + j] = out[i * whole.n + j];
      delete[] out;
    }
  }
}

// A panel's columns of M rows: what is there already, plus a product of the rows' few numbers.
template <int M>
static inline void added(const Addition& p, size_t row, const float* low, size_t wide, const float* b, size_t start) {
  size_t columns = least(p.n - start, WIDTH);
  float sum[M * WIDTH];
  tile<Single, WIDE, M, 1, false>(low, wide, b, 0, p.depth, sum, WIDTH, false, {(const char*)(b + p.stride), 0, 1, 1});
  for (int i = 0; i < M; i++) {
    const float* there = p.there[row + i] + start;
    float* out = p.out[row + i] + start;
    if (columns == WIDTH)
      for (size_t j = 0; j < WIDTH; j += LANES)
        *(Unaligned*)(out + j) = *(const Unaligned*)(there + j) + *(const Unaligned*)(sum + i * WIDTH + j);
    else
      for (size_t j = 0; j < columns; j++) out[j] = there[j] + sum[i * WIDTH + j];
  }
}

static void addition(const Addition& p) {
  size_t wide = p.panels * NARROW;
  for (size_t each = 0; each < p.panels; each++)
    for (size_t t = 0; t < tiles(p.m); t++) {
      size_t i = tile_start(p.m, t), m = tile_start(p.m, t + 1) - i;
      rows<Single, NARROW / LANES, true>(m, p.rows + i * p.k, 0, p.a + each * p.k * NARROW, p.k,
                                         p.low + i * wide + each * NARROW, wide, false, {});
    }
  for (size_t i = 0; i < p.m; i++)
    for (size_t j = 0; j < p.depth; j++) p.low[i * wide + p.skip + j] *= p.factors[i][j];
  const float* b = p.b;
  for (size_t start = 0; start < p.n; start += WIDTH, b += p.stride)
    for (size_t i = 0; i < p.m;) {
      const float* low = p.low + i * wide + p.skip;
      size_t rest = p.m - i;
      if (rest >= TALL) added<TALL>(p, i, low, wide, b, start), i += TALL;
      else if (rest >= 2) added<2>(p, i, low, wide, b, start), i += 2;
      else added<1>(p, i, low, wide, b, start), i += 1;
    }
}
