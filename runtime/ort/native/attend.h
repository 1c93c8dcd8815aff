// Causal attention of one sequence's tokens, for the heads that share keys and values: their cache is written, then read.
// Scores of all keys are kept, so that a token's result does not depend on what tokens are computed with it.
static inline size_t least(size_t one, size_t other) { return one < other ? one : other; }

static inline void fill(float* from, float* to, float with) {
  while (from < to) *from++ = with;
}

// Turn pairs of elements half apart by an angle's cos and sin; what lies beyond them stays.
static void turned(const float* x, const float* cos, const float* sin, size_t half, size_t dim, float* to) {
  for (size_t i = 0; i < half; i++) {
    to[i] = x[i] * cos[i] - x[i + half] * sin[i];
    to[i + half] = x[i + half] * cos[i] + x[i] * sin[i];
  }
  for (size_t i = 2 * half; i < dim; i++) to[i] = x[i];
}

static inline void asked(const float* memory, size_t count) {
  for (size_t i = 0; i < count; i += 16) __builtin_prefetch(memory + i, 0, 2);
}

// Up to NARROW keys [., dim] as a panel [dim][NARROW].
static void stand(const float* keys, size_t count, size_t dim, float* to) {
  for (size_t first = 0; first < NARROW; first += 8)
    for (size_t d = 0; d < dim; d += 8) {
      __m256 r[8], s[8];
      for (size_t i = 0; i < 8; i++)
        r[i] = first + i < count ? _mm256_loadu_ps(keys + (first + i) * dim + d) : _mm256_setzero_ps();
      for (int i = 0; i < 8; i += 2)
        s[i] = _mm256_unpacklo_ps(r[i], r[i + 1]), s[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
      for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
          r[i + 2 * j] = _mm256_shuffle_ps(s[i + j], s[i + j + 2], 0x44);
          r[i + 2 * j + 1] = _mm256_shuffle_ps(s[i + j], s[i + j + 2], 0xee);
        }
      for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps(to + (d + i) * NARROW + first, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
        _mm256_storeu_ps(to + (d + i + 4) * NARROW + first, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
      }
    }
}

// e to the power of x, for x <= 0; what is not a number stays so.
static inline V power(V x) {
  x = x < -87.0f ? V{} - 87.0f : x;
  V shifted = x * 1.44269504f + 12582912.0f, n = shifted - 12582912.0f;
  V r = x - n * 0.693359375f + n * 2.12194440e-4f;
  V y = 1.9875691500e-4f * r + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * r * r + r + 1.0f;
  return (V)((U)y + ((U)shifted << 23)) + (x - x);
}

static inline V capped(V x, float cap) {
  if (!cap) return x;
  V z = x / cap, size = z < 0.0f ? -z : z, e = power(-2.0f * size), t = (1.0f - e) / (1.0f + e) * cap;
  return z < 0.0f ? -t : t;
}

// Scores [first, last) into weights before their division by the sum, which is returned; zeros to the vectors' ends.
static float weighed(float* scores, size_t first, size_t last, float scale, float cap) {
  size_t start = first / LANES * LANES, end = (last + LANES - 1) / LANES * LANES;
  V most = V{} - __builtin_inff();
  for (size_t j = start; j < end; j += LANES) {
    V x = capped(*(Unaligned*)(scores + j) * scale, cap);
    *(Unaligned*)(scores + j) = x;
    if (j < first || j + LANES > last)
      for (size_t i = j; i < j + LANES; i++)
        if (i < first || i >= last) scores[i] = -__builtin_inff();
    x = *(Unaligned*)(scores + j);
    most = x > most ? x : most;
  }
  float top = -__builtin_inff();
  for (int i = 0; i < LANES; i++) top = most[i] > top ? most[i] : top;
  V sum{};
  for (size_t j = start; j < end; j += LANES) {
    *(Unaligned*)(scores + j) = power(*(Unaligned*)(scores + j) - top);
    if (j < first || j + LANES > last)
      for (size_t i = j; i < j + LANES; i++)
        if (i < first || i >= last) scores[i] = 0;
    sum += *(Unaligned*)(scores + j);
  }
  float total = 0;
  for (int i = 0; i < LANES; i++) total += sum[i];
  return total;
}

static void attend(const Attend& p) {
  for (size_t t = 0; t < p.tokens; t++) {
    size_t at = p.past + t;
    turned(p.k + t * p.kv_stride, p.cos + at * p.half, p.sin + at * p.half, p.half, p.dim, p.keys + at * p.dim);
    for (size_t i = 0; i < p.dim; i++) p.values[at * p.dim + i] = p.v[t * p.kv_stride + i];
  }
  size_t together = p.together, wide = (p.past + p.tokens + NARROW - 1) / NARROW * NARROW;
  float *turn = p.scratch, *mixed = turn + together * p.heads * p.dim, *panel = mixed + together * p.heads * p.dim;
  float* scores = panel + NARROW * p.dim;
  for (size_t t = 0; t < p.tokens; t += together) {
    size_t count = least(together, p.tokens - t), m = count * p.heads, keys = p.past + t + count;
    for (size_t i = 0; i < m; i++) {
      size_t at = p.past + t + i / p.heads;
      const float* q = p.q + (t + i / p.heads) * p.q_stride + i % p.heads * p.dim;
      turned(q, p.cos + at * p.half, p.sin + at * p.half, p.half, p.dim, &turn[i * p.dim]);
    }
    size_t seen = p.past + t + 1, from = p.window && seen > p.window ? (seen - p.window) / NARROW * NARROW : 0;
    for (size_t key = from; key < keys; key += NARROW) {
      asked(p.keys + (key + 2 * NARROW) * p.dim, NARROW * p.dim), asked(p.values + key * p.dim, NARROW * p.dim);
      stand(p.keys + key * p.dim, least(NARROW, keys - key), p.dim, panel);
      for (size_t i = 0; i < m; i += TALL)
        rows<Single, NARROW / LANES>(least(TALL, m - i), &turn[i * p.dim], p.dim, panel, p.dim,
                                     &scores[i * wide + key], wide, false, {});
    }
    for (size_t i = 0; i < m; i += TALL) {
      size_t some = least(TALL, m - i), last = p.past + t + (i + some - 1) / p.heads + 1;
      float total[TALL];
      for (size_t j = 0; j < some; j++) {
        size_t own = p.past + t + (i + j) / p.heads + 1, first = p.window && own > p.window ? own - p.window : 0;
        float* row = &scores[(i + j) * wide];
        total[j] = weighed(row, first, own, p.scale, p.cap);
        fill(row + from, row + first / LANES * LANES, 0);
        fill(row + own, row + last, 0);
      }
      const float* values = p.values + from * p.dim;
      size_t d = 0;
      for (; d + WIDTH <= p.dim; d += WIDTH)
        rows<Single, WIDE>(some, &scores[i * wide + from], wide, values + d, last - from, &mixed[i * p.dim + d], p.dim,
                           false, {}, p.dim);
      for (; d < p.dim; d += LANES)
        rows<Single, 1>(some, &scores[i * wide + from], wide, values + d, last - from, &mixed[i * p.dim + d], p.dim,
                        false, {}, p.dim);
      for (size_t j = i; j < i + some; j++) {
        float* to = p.out + (t + j / p.heads) * p.q_stride + j % p.heads * p.dim;
        for (size_t e = 0; e < p.dim; e++) to[e] = mixed[j * p.dim + e] / total[j - i];
      }
    }
  }
  for (size_t t = p.tokens; t < p.padded; t++) fill(p.out + t * p.q_stride, p.out + t * p.q_stride + p.heads * p.dim, 0);
}
