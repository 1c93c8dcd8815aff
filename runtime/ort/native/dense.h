// Products of float32 rows with float32 or bfloat16 panels. Every element is one chain of fused multiply-adds over k in
// order, so that a row's result does not depend on what rows are beside it. Included once per set of instructions,
// which says V (a vector of floats), spread, LANES, WIDE (vectors of a panel) and TALL (rows of a tile).
constexpr size_t WIDTH = LANES * WIDE;
constexpr size_t DEPTH = 384;  // of k, so that a panel's part stays near while many rows pass over it

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

// What a tile asks memory for while it computes: `lines` lines with every step of k, from `next` on, `step` bytes apart.
struct Ahead {
  const char* next = nullptr;
  int lines = 0, step = 0;
};

// W vectors of M rows.
template <class Form, int W, int M>
static inline void tile(const float* a, size_t lda, const typename Form::Stored* b, size_t depth, float* c, size_t ldc,
                        bool more, Ahead ahead, size_t stride = W * LANES) {
  V sum[M][W];
  for (int i = 0; i < M; i++)
    for (int j = 0; j < W; j++) sum[i][j] = more ? (V) * (const Unaligned*)(c + i * ldc + j * LANES) : V{};
  for (size_t k = 0; k < depth; k++, b += stride) {
    for (int line = 0; line < ahead.lines; line++, ahead.next += ahead.step) __builtin_prefetch(ahead.next, 0, 2);
    V w[W];
    Form::template load<W>(b, w);
    for (int i = 0; i < M; i++) {
      V x = spread(a[i * lda + k]);
      for (int j = 0; j < W; j++) sum[i][j] = x * w[j] + sum[i][j];
    }
  }
  for (int i = 0; i < M; i++)
    for (int j = 0; j < W; j++) *(Unaligned*)(c + i * ldc + j * LANES) = sum[i][j];
}

template <class Form, int W>
static void rows(int m, const float* a, size_t lda, const typename Form::Stored* b, size_t depth, float* c, size_t ldc,
                 bool more, Ahead ahead, size_t stride = W * LANES) {
  switch (m) {
    case 1: return tile<Form, W, 1>(a, lda, b, depth, c, ldc, more, ahead, stride);
    case 2: return tile<Form, W, 2>(a, lda, b, depth, c, ldc, more, ahead, stride);
    case 3: return tile<Form, W, 3>(a, lda, b, depth, c, ldc, more, ahead, stride);
    case 4: return tile<Form, W, 4>(a, lda, b, depth, c, ldc, more, ahead, stride);
    case 5: return tile<Form, W, 5>(a, lda, b, depth, c, ldc, more, ahead, stride);
    default: return tile<Form, W, TALL>(a, lda, b, depth, c, ldc, more, ahead, stride);
  }
}

template <class Form, int W>
static void panel(const Dense& p, const typename Form::Stored* b, float* c, size_t ldc) {
  constexpr size_t STRIDE = W * LANES;
  size_t tiles = (p.m + TALL - 1) / TALL, step = tiles == 1 ? p.k : DEPTH;
  size_t bytes = STRIDE * sizeof(*b), share = bytes < tiles ? 1 : bytes / tiles;  // of a step of k, each tile asks its part
  int lines = (share + 63) / 64;
  for (size_t k = 0; k < p.k; k += step, b += step * STRIDE) {
    size_t depth = k + step < p.k ? step : p.k - k;
    const char* next = (const char*)b + (tiles == 1 ? AHEAD : depth * bytes);
    for (size_t t = 0; t < tiles; t++) {
      size_t i = p.m * t / tiles, m = p.m * (t + 1) / tiles - i;
      Ahead ahead{next + t * share * depth, t * share < bytes ? lines : 0, (int)share / lines};
      rows<Form, W>(m, p.rows + i * p.k + k, p.k, b, depth, c + i * ldc, ldc, k > 0, ahead);
    }
  }
}

template <class Form>
static void product(const Dense& p, size_t first, size_t last) {
  typedef typename Form::Stored Stored;
  for (size_t each = first; each < last; each++) {
    const Stored* b = (const Stored*)p.panels + each * p.k * WIDTH;
    size_t start = each * WIDTH, columns = p.n - start < WIDTH ? p.n - start : WIDTH;
    if (columns == WIDTH) {
      panel<Form, WIDE>(p, b, p.out + start, p.n);
    } else {
      float* whole = new float[p.m * WIDTH];
      panel<Form, WIDE>(p, b, whole, WIDTH);
      for (size_t i = 0; i < p.m; i++)
        for (size_t j = 0; j < columns; j++) p.out[i * p.n + start + j] = whole[i * WIDTH + j];
      delete[] whole;
    }
  }
}

// A panel's columns of M rows: what is there already, plus a product of the rows' few numbers.
template <int M>
static inline void added(const Addition& p, size_t row, const float* low, size_t wide, const float* b, size_t start) {
  size_t columns = p.n - start < WIDTH ? p.n - start : WIDTH;
  float sum[M * WIDTH];
  tile<Single, WIDE, M>(low, wide, b, p.depth, sum, WIDTH, false, {});
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
  Dense first{p.rows, p.a, p.low, p.m, p.k, wide};
  for (size_t each = 0; each < p.panels; each++)
    panel<Single, NARROW / LANES>(first, p.a + each * p.k * NARROW, p.low + each * NARROW, wide);
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
