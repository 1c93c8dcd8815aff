// Causal attention of one sequence's tokens, for the heads that share keys and values: their cache is written, then read.
// Scores of all keys are kept, so that a token's result does not depend on what tokens are computed with it.
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

// Up to NARROW keys [., dim] as a panel [dim][NARROW].
static void stand(const float* keys, size_t count, size_t dim, float* to) {
  for (size_t first = 0; first < NARROW; first += 8)
    for (size_t d = 0; d < dim; d += 8) {
      __m256 r[8];
      for (size_t i = 0; i < 8; i++)
        r[i] = first + i < count ? _mm256_loadu_ps(keys + (first + i) * dim + d) : _mm256_setzero_ps();
      transpose(r);
      for (size_t i = 0; i < 8; i++) _mm256_storeu_ps(to + (d + i) * NARROW + first, r[i]);
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

// Scores of m queries for up to NARROW keys.
static void scored(const float* queries, size_t m, const float* keys, size_t count, size_t dim, float* panel,
                   float* scores, size_t wide, Ahead ahead) {
  stand(keys, count, dim, panel);
  for (size_t i = 0; i < m; i += TALL, ahead = {})
    rows<Single, NARROW / LANES, false>(least(TALL, m - i), queries + i * dim, dim, panel, dim, scores + i * wide, wide,
                                        false, ahead);
}

// Keys [from, to) of a cache, each block asking for those after the next one and for its values.
static void all_scored(const float* queries, size_t m, const Attend& p, size_t from, size_t to, const float* after,
                       float* panel, float* scores, size_t wide) {
  for (size_t key = from; key < to; key += NARROW) {
    size_t later = key + 2 * NARROW;
    const float* next = later < to ? p.keys + later * p.dim : after + (later - to) / NARROW * NARROW * p.dim;
    Ahead ahead{(const char*)next, (size_t)((char*)(p.values + key * p.dim) - (char*)next), 2, LINE / (4 * NARROW)};
    scored(queries, m, p.keys + key * p.dim, least(NARROW, to - key), p.dim, panel, scores + key, wide, ahead);
  }
}

// Values of `count` keys, weighed for at most TALL queries; `more` is added to what is there.
static void mix(size_t some, const float* weights, size_t wide, const float* values, size_t count, float* to, size_t dim,
                bool more) {
  size_t d = 0;
  for (; d + WIDTH <= dim; d += WIDTH)
    rows<Single, WIDE, false>(some, weights, wide, values + d, count, to + d, dim, more, {}, dim);
  for (; d < dim; d += LANES) rows<Single, 1, false>(some, weights, wide, values + d, count, to + d, dim, more, {}, dim);
}

static void remember(const Attend& p) {
  for (size_t t = 0; t < p.tokens; t++) {
    size_t at = p.past + t;
    turned(p.k + t * p.kv_stride, p.cos + at * p.half, p.sin + at * p.half, p.half, p.dim, p.keys + at * p.dim);
    for (size_t i = 0; i < p.dim; i++) p.values[at * p.dim + i] = p.v[t * p.kv_stride + i];
  }
}

// The queries of `count` tokens from the t-th on.
static void turn_queries(const Attend& p, size_t t, size_t count, float* to) {
  for (size_t i = 0; i < count * p.heads; i++, to += p.dim) {
    size_t token = t + i / p.heads, at = p.past + token;
    const float* q = p.q + token * p.q_stride + i % p.heads * p.dim;
    turned(q, p.cos + at * p.half, p.sin + at * p.half, p.half, p.dim, to);
  }
}

static void attend(const Attend& p) {
  remember(p);
  size_t together = p.together, wide = (p.past + p.tokens + NARROW - 1) / NARROW * NARROW;
  float *turn = p.scratch, *mixed = turn + together * p.heads * p.dim, *panel = mixed + together * p.heads * p.dim;
  float* scores = panel + NARROW * p.dim;
  for (size_t t = 0; t < p.tokens; t += together) {
    size_t count = least(together, p.tokens - t), m = count * p.heads, keys = p.past + t + count;
    turn_queries(p, t, count, turn);
    size_t seen = p.past + t + 1, from = p.window && seen > p.window ? (seen - p.window) / NARROW * NARROW : 0;
    all_scored(turn, m, p, from, keys, p.keys + p.length * p.dim, panel, scores, wide);
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
      mix(some, &scores[i * wide + from], wide, p.values + from * p.dim, last - from, &mixed[i * p.dim], p.dim, false);
      for (size_t j = i; j < i + some; j++) {
        float* to = p.out + (t + j / p.heads) * p.q_stride + j % p.heads * p.dim;
        for (size_t e = 0; e < p.dim; e++) to[e] = mixed[j * p.dim + e] / total[j - i];
      }
    }
  }
  for (size_t t = p.tokens; t < p.padded; t++) fill(p.out + t * p.q_stride, p.out + t * p.q_stride + p.heads * p.dim, 0);
}

// A token of each of some sequences that hold the same first `common` tokens, which are read once.
static void attend_forks(const Attend* each, size_t count, size_t common) {
  const Attend& p = *each;
  size_t m = count * p.heads, longest = 0;
  for (size_t r = 0; r < count; r++) longest = each[r].past > longest ? each[r].past : longest;
  size_t wide = longest / NARROW * NARROW + NARROW;
  common = common / NARROW * NARROW;
  float *turn = p.scratch, *mixed = turn + m * p.dim, *panel = mixed + m * p.dim, *scores = panel + NARROW * p.dim;
  for (size_t r = 0; r < count; r++) remember(each[r]), turn_queries(each[r], 0, 1, turn + r * p.heads * p.dim);
  all_scored(turn, m, p, 0, common, p.keys + common * p.dim, panel, scores, wide);
  for (size_t r = 0; r < count; r++) {
    const float* after = r + 1 < count ? each[r + 1].keys + common * p.dim : p.keys + p.length * p.dim;
    size_t i = r * p.heads;
    all_scored(turn + i * p.dim, p.heads, each[r], common, each[r].past + 1, after, panel, scores + i * wide, wide);
  }
  float* total = turn;  // whose queries are done with
  for (size_t i = 0; i < m; i++) total[i] = weighed(scores + i * wide, 0, each[i / p.heads].past + 1, p.scale, p.cap);
  if (common)
    for (size_t i = 0; i < m; i += TALL)
      mix(least(TALL, m - i), scores + i * wide, wide, p.values, common, mixed + i * p.dim, p.dim, false);
  for (size_t r = 0; r < count; r++) {
    const Attend& own = each[r];
    for (size_t h = 0; h < p.heads; h += TALL) {
      size_t i = r * p.heads + h, some = least(TALL, p.heads - h);
      mix(some, scores + i * wide + common, wide, own.values + common * p.dim, own.past + 1 - common, mixed + i * p.dim,
          p.dim, common > 0);
      for (size_t j = i; j < i + some; j++)
        for (size_t e = 0; e < p.dim; e++) own.out[(j - r * p.heads) * p.dim + e] = mixed[j * p.dim + e] / total[j];
    }
  }
}
