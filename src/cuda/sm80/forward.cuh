// Attention forward with mma.sync and cp.async: one kernel, the cover as an iterator. Layer: cuda.
//
// A block owns the rows of one Item and walks its key tiles. Its warps share the rows (wm), the
// keys of a tile (wn: each keeps a Partial of its own keys, merged at the end) and the channels of
// V (wd: each repeats the scores and keeps its own slice of the output).
#pragma once
#include <type_traits>

#include "cuda/sm80/finish.cuh"
#include "cuda/sm80/keys.cuh"
#include "cuda/sm80/own_keys.cuh"
#include "cuda/sm80/params.h"
#include "cuda/sm80/pieces.cuh"
#include "cuda/sm80/ptx.cuh"

namespace regard::cuda::sm80 {

template <class T_, int kDk_, int kDv_, int kWm_, int kWn_, int kWd_, int kKeys_, int kStages_,
          Kind kKind_ = Kind::any>
struct Shape {
  using T = T_;
  static constexpr int kDk = kDk_, kDv = kDv_, kWm = kWm_, kWn = kWn_, kWd = kWd_;
  static constexpr int kKeys = kKeys_, kStages = kStages_;  // keys a tile; tiles in shared memory
  static constexpr Kind kKind = kKind_;
  static constexpr bool kLean = kKind == Kind::ranges || kKind == Kind::lists;
  static constexpr bool kWide = kKind == Kind::wide;
  static constexpr bool kPlain = kLean || kWide;  // scores, softmax, no bit mask
  static constexpr bool kSkips = kKind == Kind::skips;
  static_assert(!kSkips || (kKeys_ == 64 && kWn_ == 1 && kWd_ == 1));
  static constexpr int kM = kWide && kDv <= 128 ? 2 : 1;  // tiles of 16 rows a warp
  static constexpr int kRows = 16 * kM * kWm, kThreads = 32 * kWm * kWn * kWd;
  static constexpr int kOwnKeys = kKeys / kWn, kOwnDv = kDv / kWd;
  // Warps that share nothing but the queries: each copies its own keys and waits for no other.
  static constexpr bool kAlone = kWm == 1 && kWd == 1 && kOwnKeys <= 32;
  static constexpr bool kHoldQ = kLean && kDk <= 128;  // queries stay in registers
  static constexpr int kStageElements = kKeys * (kDk + kDv);
  static constexpr int kIdSlots = kWide ? 1 : kStages + 1;
  static constexpr int kBytes =
      2 * (kRows * kDk + kStages * kStageElements) + kRows * 16 + kIdSlots * kKeys * 16;
};

template <class S>
struct Block {
  using T = typename S::T;
  using Tiles = std::conditional_t<S::kLean, OwnKeys<S>, KeyTiles<S>>;
  using Span = typename Tiles::Span;
  static constexpr int kM = S::kM, kNn = S::kOwnKeys / 8, kDn = S::kOwnDv / 8;
  static constexpr int kR = 2 * kM;  // rows of a thread: r is row 8 (r % 2) of its tile r / 2

  const Params& p;
  const Item& item;  // of the kernel's frame: a member would keep the whole block out of registers
  const int thread;
  int lane;
  const int wm, wn, wd;
  T* const q;
  T* const ring;
  int4* const row_info;  // {lo, hi, sink, query}
  Tiles tiles;
  const char *k_from, *v_from;  // of the KV head; of the pool, with pages
  int2 read_by_all;             // keys that every row of the warp reads, as a range

  uint32_t held[S::kHoldQ ? S::kDk / 16 : 1][4];
  float s[kM][kNn][4];
  float acc[kM][kDn][4];
  float max[kR], sum[kR];
  bool skips[2];  // kSkips: whether this tile's values stay out of the row

  __device__ __forceinline__ Block(const Params& params, const Item& i, char* memory)
      : p(params),
        item(i),
        thread(threadIdx.x),
        lane(threadIdx.x % 32),
        wm(threadIdx.x / 32 % S::kWm),
        wn(threadIdx.x / 32 / S::kWm % S::kWn),
        wd(threadIdx.x / 32 / S::kWm / S::kWn),
        q(reinterpret_cast<T*>(memory)),
        ring(q + S::kRows * S::kDk),
        row_info(reinterpret_cast<int4*>(ring + S::kStages * S::kStageElements)),
        tiles(params, i, row_info + S::kRows, wn) {
    const int64_t b = p.pages ? 0 : item.b;
    const int kv_head = item.h0 / p.group;
    k_from = p.k.data + b * p.k.batch + kv_head * p.k.head;
    v_from = p.v.data + b * p.v.batch + kv_head * p.v.head;
#pragma unroll
    for (int r = 0; r < kR; ++r) max[r] = -kInf, sum[r] = 0;
  }

  __device__ __forceinline__ int rows() const { return item.queries * item.heads; }
  __device__ __forceinline__ int own_row(int r) const { return wm * 16 * kM + lane / 4 + 8 * r; }
  __device__ __forceinline__ int head(int row) const { return item.h0 + row % item.heads; }
  __device__ __forceinline__ int query(int row) const { return query_of<S>(p, item, row); }
  __device__ __forceinline__ T* keys_of(int tile) const {
    return ring + tile % S::kStages * S::kStageElements;
  }
  __device__ __forceinline__ T* values_of(int tile) const {
    return keys_of(tile) + S::kKeys * S::kDk;
  }

  __device__ __forceinline__ void load_queries() {
    constexpr int kChunks = S::kDk / 8;
    for (int c = thread; c < S::kRows * kChunks; c += S::kThreads) {
      const int r = c / kChunks, chunk = c % kChunks;
      const bool valid = r < rows() && chunk * 8 < p.dk;
      const char* from = p.q.data;
      if (valid)
        from +=
            item.b * p.q.batch + head(r) * p.q.head + int64_t(query(r)) * p.q.token + chunk * 16;
      copy16(shared_address(q) + swizzled<S::kDk>(r, chunk), from, valid);
    }
  }

  // What is the plan's own, asked for while the kernel ahead still runs. What row `thread` reads.
  __device__ __forceinline__ int4 ask() {
    tiles.ask();
    const int i = query(min(thread, rows() - 1));
    // Rows past the end allow everything, so that they never ask for a mask.
    return thread < rows() ? make_int4(p.lo[i], p.hi[i], p.sink[i], i)
                           : make_int4(0, 0x7fffffff, 0, i);
  }

  __device__ __forceinline__ void load(int tile) {
    tiles.load(tile, keys_of(tile), values_of(tile), k_from, v_from);
  }

  __device__ __forceinline__ void sync() { S::kAlone ? __syncwarp() : __syncthreads(); }

  __device__ __forceinline__ void run(const int4& asked) {
    const int first = item.begin, end = item.end;
    tiles.start();
    for (int t = first; t < first + S::kStages - 1; ++t) {
      if (t < end) load(t);
      if (t == first) load_queries();
      copy_commit();
    }
    static_assert(S::kRows <= S::kThreads);
    if (thread < S::kRows) row_info[thread] = asked;
    clear();
    for (int t = first; t < end; ++t) {
      copy_wait<S::kStages - 2>();
      // Tile t is here, and nobody reads tile t - 1 any more.
      if (t == first) {
        __syncthreads();
        find_read_by_all();
        if constexpr (S::kHoldQ) {
#pragma unroll
          for (int k = 0; k < S::kDk / 16; ++k) load_query(held[k], k);
        }
      } else {
        sync();
      }
      if (t + S::kStages - 1 < end) load(t + S::kStages - 1);
      copy_commit();
      if constexpr (S::kLean) {
        step(t);
      } else {
        const int4 ahead = tiles.fetch(t + S::kStages);
        step(t);
        tiles.store(t + S::kStages, ahead);
      }
    }
    copy_wait<0>();
    add_sums();
  }

  // Over the lanes that share a row.
  __device__ __forceinline__ void add_sums() {
#pragma unroll
    for (float& x : sum) {
      x += __shfl_xor_sync(~0u, x, 1);
      x += __shfl_xor_sync(~0u, x, 2);
    }
  }

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (auto& a : acc[m]) a[0] = a[1] = a[2] = a[3] = 0;
  }

  // One tile: S = Q K^T, the score, the weights, O += P V.
  __device__ __forceinline__ void step(int tile) {
    const Span span = tiles.span(tile, wn * S::kOwnKeys, lane);
    const Reads reads = what_is_read(span);
    if (reads == Reads::none) return;
    multiply_queries(keys_of(tile));
    if (!S::kPlain && !p.plain) add_terms(span);
    bool poisoned = false;
    if (reads == Reads::some) forbid(span);
    if (reads == Reads::some || (!S::kPlain && (p.bias.data || p.key_bias.data)))
      poisoned = any_forbidden() && values_not_finite(values_of(tile));
    !S::kPlain&& p.sigmoid ? sigmoid_weights(poisoned) : softmax_weights(poisoned);
    if constexpr (S::kSkips) {
      if (__all_sync(~0u, skips[0] && skips[1])) return;
      if (!poisoned && __any_sync(~0u, skips[0] || skips[1]))
        poisoned = values_not_finite(values_of(tile));
    }
    poisoned ? add_values_one_by_one(values_of(tile)) : multiply_values(values_of(tile));
  }

  __device__ __forceinline__ void find_read_by_all() {
    const int4 r = row_info[wm * 16 * kM + lane % (16 * kM)];
    read_by_all = make_int2(__reduce_max_sync(~0u, r.x), __reduce_min_sync(~0u, r.y));
  }

  enum class Reads { none, some, all };
  __device__ __forceinline__ Reads what_is_read(const Span& span) const {
    if (span.count <= 0) return Reads::none;
    const bool whole = span.count == S::kOwnKeys;
    if (tiles.listed()) return whole && !span.boundary ? Reads::all : Reads::some;
    if (!S::kPlain && p.mask) return Reads::some;
    const int from = span.first, to = span.first + span.count;
    if (whole && read_by_all.x <= from && to <= read_by_all.y) return Reads::all;
    bool none = true, all = whole;
#pragma unroll
    for (int n = 0; n < kR; ++n) {
      const int4 r = row_info[own_row(n)];
      const bool inside = r.x <= from && to <= r.y;
      all &= inside || to <= r.z;
      none &= own_row(n) >= rows() || ((to <= r.x || from >= r.y) && from >= r.z);
    }
    if (__all_sync(~0u, none)) return Reads::none;
    return __all_sync(~0u, all) ? Reads::all : Reads::some;
  }

  // Channels 16 k to 16 k + 15 of the warp's rows, as an operand.
  __device__ __forceinline__ void load_query(uint32_t (&a)[4], int k) const {
    load_matrix(a, shared_address(q) + swizzled<S::kDk>(wm * 16 + lane % 16, 2 * k + lane / 16));
  }

  __device__ __forceinline__ void multiply_queries(const T* keys) {
#pragma unroll
    for (auto& x : s[0]) x[0] = x[1] = x[2] = x[3] = 0;
    const uint32_t ka = shared_address(keys);
    const int k_row = wn * S::kOwnKeys + lane % 8 + lane / 16 * 8;
#pragma unroll
    for (int k = 0; k < S::kDk / 16; ++k) {
      uint32_t a[4];
      if constexpr (S::kHoldQ) {
        a[0] = held[k][0], a[1] = held[k][1], a[2] = held[k][2], a[3] = held[k][3];
      } else {
        load_query(a, k);
      }
#pragma unroll
      for (int n = 0; n < kNn / 2; ++n) {
        uint32_t b[4];
        load_matrix(b, ka + swizzled<S::kDk>(k_row + 16 * n, 2 * k + lane / 8 % 2));
        multiply<T>(s[0][2 * n], a, b[0], b[1]);
        multiply<T>(s[0][2 * n + 1], a, b[2], b[3]);
      }
    }
  }

  // f(score, r, key of the tile slice) for each of this thread's scores.
  template <class F>
  __device__ __forceinline__ void each(const F& f) {
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int n = 0; n < kNn; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) f(s[m][n][e], 2 * m + e / 2, n * 8 + lane % 4 * 2 + e % 2);
  }

  __device__ __forceinline__ void add_terms(const Span& span) {
    if (p.cap > 0) {
      each([&](float& x, int, int) { x = p.cap * tanhf(x * p.factor); });
    } else {
      each([&](float& x, int, int) { x *= p.factor; });
    }
    constexpr float kLog2e = 1.4426950408889634f;
    int head_of[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) head_of[half] = head(min(own_row(half), rows() - 1));
    if (p.alibi) {
      float slope[2], position[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        slope[half] = p.alibi[head_of[half]];
        position[half] = float(p.position[row_info[own_row(half)].w]);
      }
      each([&](float& x, int half, int j) {
        x -= slope[half] * fabsf(position[half] - float(span.id(j)));
      });
    }
    if (p.bias.data) {
      const char* row[2];
      float slope[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        row[half] = p.bias.data + item.b * p.bias.batch + head_of[half] * p.bias.head +
                    row_info[own_row(half)].w * p.bias.token;
        slope[half] = p.bias_scale ? p.bias_scale[head_of[half]] : 1.0f;
      }
      each([&](float& x, int half, int j) {
        const int id = min(span.id(j), p.nk - 1);
        const float bias = read(row[half] + id * p.bias_key, p.bias_type);
        x = bias == -kInf ? bias : x + kLog2e * slope[half] * bias;
      });
    }
    if (p.key_bias.data) {
      const char* row =
          p.key_bias.data + item.b * p.key_bias.batch + item.h0 / p.group * p.key_bias.head;
      each([&](float& x, int, int j) {
        const int id = min(span.id(j), p.nk - 1);
        x += kLog2e * *reinterpret_cast<const float*>(row + id * p.key_bias.token);
      });
    }
  }

  static __device__ __forceinline__ float read(const char* at, Type type) {
    if (type == Type::f32) return *reinterpret_cast<const float*>(at);
    if (type == Type::f16) return to_float(*reinterpret_cast<const __half*>(at));
    return to_float(*reinterpret_cast<const __nv_bfloat16*>(at));
  }

  __device__ __forceinline__ void forbid(const Span& span) {
    int4 range[kR];
    const uint64_t* words[kR] = {};
#pragma unroll
    for (int r = 0; r < kR; ++r) {
      range[r] = row_info[own_row(r)];
      if (!S::kPlain && p.mask)
        words[r] = p.mask + item.b * p.mask_batch +
                   head(min(own_row(r), rows() - 1)) * p.mask_head + range[r].w * p.mask_row;
    }
    each([&](float& x, int r, int j) {
      const int id = span.id(j);
      bool allowed = (id >= range[r].x && id < range[r].y) || id < range[r].z;
      allowed &= j < span.count;
      if (!S::kPlain && p.mask && allowed) allowed = words[r][id >> 6] >> (id & 63) & 1;
      if (!allowed) x = -kInf;
    });
  }

  __device__ __forceinline__ bool any_forbidden() {
    bool any = false;
    each([&](float& x, int, int) { any |= x == -kInf; });
    return __any_sync(~0u, any);
  }

  // Whether the warp's part of V holds an infinity or NaN.
  __device__ __forceinline__ bool values_not_finite(const T* values) const {
    // Added to a magnitude, its exponent's last bit reaches the sign where all of it is set.
    constexpr uint32_t kLast = kIsBf16<T> ? 0x00800080 : 0x04000400;
    constexpr int kChunks = S::kOwnDv / 8;
    uint32_t signs = 0;
    for (int c = lane; c < S::kOwnKeys * kChunks; c += 32) {
      const int r = wn * S::kOwnKeys + c / kChunks, chunk = wd * kChunks + c % kChunks;
      const uint4 x = *reinterpret_cast<const uint4*>(reinterpret_cast<const char*>(values) +
                                                      swizzled<S::kDv>(r, chunk));
      for (uint32_t w : {x.x, x.y, x.z, x.w}) signs |= (w & 0x7fff7fff) + kLast;
    }
    return __any_sync(~0u, (signs & 0x80008000) != 0);
  }

  __device__ __forceinline__ void softmax_weights(bool poisoned) {
    // The fast way scales and subtracts in one rounding, so that the largest weight is 2^(rounding
    // of the scaled maximum) instead of 1: below this, within 2^-18 of it.
    constexpr float kLarge = 64;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float m = S::kSkips ? -kInf : max[half];
#pragma unroll
      for (int n = 0; n < kNn; ++n) m = fmaxf(m, fmaxf(s[0][n][2 * half], s[0][n][2 * half + 1]));
      m = fmaxf(m, __shfl_xor_sync(~0u, m, 1));
      m = fmaxf(m, __shfl_xor_sync(~0u, m, 2));
      if constexpr (S::kSkips) {
        skips[half] = own_row(half) >= rows() || m * p.c < max[half] * p.c - p.value_skip;
        m = fmaxf(m, max[half]);
      }
      const float top = m == -kInf ? 0.0f : m * p.c;
      float scale = exp2_fast(max[half] * p.c - top), total = 0;
      if (poisoned || __any_sync(~0u, fabsf(top) > kLarge)) {
        if (max[half] == m) scale = 1;
#pragma unroll
        for (int n = 0; n < kNn; ++n)
#pragma unroll
          for (int e = 2 * half; e < 2 * half + 2; ++e) {
            const float x = __fmul_rn(s[0][n][e], p.c);
            const bool forbidden = s[0][n][e] == -kInf;
            const float w = x == top ? 1.0f : exp2_fast(x - top);
            s[0][n][e] = forbidden ? -0.0f : w;  // minus zero: add_values_one_by_one leaves it out
            total += forbidden ? 0.0f : w;
          }
      } else {
#pragma unroll
        for (int n = 0; n < kNn; ++n)
#pragma unroll
          for (int e = 2 * half; e < 2 * half + 2; ++e) {
            s[0][n][e] = exp2_fast(fmaf(s[0][n][e], p.c, -top));
            total += s[0][n][e];
          }
      }
      if constexpr (S::kSkips) {
        if (skips[half])
#pragma unroll
          for (int n = 0; n < kNn; ++n) s[0][n][2 * half] = s[0][n][2 * half + 1] = -0.0f;
      }
      sum[half] = sum[half] * scale + total;
      max[half] = m;
#pragma unroll
      for (int d = 0; d < kDn; ++d) acc[0][d][2 * half] *= scale, acc[0][d][2 * half + 1] *= scale;
    }
  }

  __device__ __forceinline__ void sigmoid_weights(bool poisoned) {
    max[0] = max[1] = 0;
    each([&](float& x, int half, int) {
      const bool forbidden = x == -kInf;
      const float w = __fdividef(1.0f, 1.0f + exp2_fast(-(x * p.c + p.shift)));
      x = forbidden ? (poisoned ? -0.0f : 0.0f) : w;
      sum[half] += x;
    });
  }

  // Weights of keys 16 k to 16 k + 15, rounded, as an operand.
  __device__ __forceinline__ void load_weights(uint32_t (&a)[4], int m, int k) const {
    const float(&x)[4] = s[m][2 * k], (&y)[4] = s[m][2 * k + 1];
    a[0] = pack<T>(x[0], x[1]), a[1] = pack<T>(x[2], x[3]);
    a[2] = pack<T>(y[0], y[1]), a[3] = pack<T>(y[2], y[3]);
  }

  __device__ __forceinline__ void multiply_values(const T* values) {
    const uint32_t va = shared_address(values);
    const int v_row = wn * S::kOwnKeys + lane % 16;
#pragma unroll
    for (int k = 0; k < kNn / 2; ++k) {
      uint32_t a[kM][4];
#pragma unroll
      for (int m = 0; m < kM; ++m) load_weights(a[m], m, k);
#pragma unroll
      for (int d = 0; d < kDn / 2; ++d) {
        uint32_t b[4];
        load_matrix_transposed(b,
                               va + swizzled<S::kDv>(v_row + 16 * k, wd * kDn + 2 * d + lane / 16));
#pragma unroll
        for (int m = 0; m < kM; ++m) {
          multiply<T>(acc[m][2 * d], a[m], b[0], b[1]);
          multiply<T>(acc[m][2 * d + 1], a[m], b[2], b[3]);
        }
      }
    }
  }

  // O += P V where V holds infinities or NaN: a forbidden pair must not touch them.
  __device__ __forceinline__ void add_values_one_by_one(const T* values) {
#pragma unroll 1
    for (int j = 0; j < S::kOwnKeys; ++j) {
      float w[kR] = {};
      each([&](float x, int r, int column) {
        if (column == j / 8 * 8 + lane % 4 * 2 + j % 2) w[r] = x;
      });
#pragma unroll
      for (float& x : w) x = __shfl_sync(~0u, x, (lane & ~3) | j % 8 / 2);
#pragma unroll
      for (int d = 0; d < kDn; ++d) {
        const T* v =
            values + swizzled<S::kDv>(wn * S::kOwnKeys + j, wd * kDn + d) / 2 + lane % 4 * 2;
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          const float x = to_float(v[c]);
#pragma unroll
          for (int r = 0; r < kR; ++r)
            if (__float_as_uint(w[r]) != 0x80000000u) acc[r / 2][d][r % 2 * 2 + c] += w[r] * x;
        }
      }
    }
  }

  // One warp a row group: straight from the registers. Several over keys: through shared memory.
  __device__ __forceinline__ void write_rows() {
    if constexpr (S::kWn > 1) {
      merge_warps();
    } else {
#pragma unroll
      for (int r = 0; r < kR; ++r) {
        const int row = own_row(r);
        if (row >= rows()) continue;
        const Target to = target(row, {max[r], sum[r]}, wd == 0 && lane % 4 == 0);
#pragma unroll
        for (int d = 0; d < kDn; ++d) {
          const int c = (wd * kDn + d) * 8 + lane % 4 * 2;
          if (c < p.dv)
            write2(to.row, to.type, c, acc[r / 2][d][r % 2 * 2] * to.factor,
                   acc[r / 2][d][r % 2 * 2 + 1] * to.factor);
        }
      }
    }
  }

  struct Target {
    char* row;
    Type type;
    float factor;
  };
  // Where row `row` goes and by what it is multiplied; `heads` also writes its lse or its Partial's
  // maximum and sum.
  __device__ __forceinline__ Target target(int row, RowHead h, bool heads) const {
    if (!S::kWide) h.max = p.sigmoid ? 0 : h.max * p.c;
    if (item.slot >= 0) {
      const int64_t slot = item.slot + row;
      if (heads) *reinterpret_cast<float2*>(p.part_head + 2 * slot) = make_float2(h.max, h.sum);
      return {reinterpret_cast<char*>(p.part_acc + slot * p.dv), Type::f32, 1};
    }
    const int i = query(row), n = head(row);
    const float factor = finish_factor(h, p.sigmoid, p.sink_logit ? p.sink_logit + n : nullptr);
    if (heads && p.lse.data)
      *reinterpret_cast<float*>(p.lse.data + item.b * p.lse.batch + n * p.lse.head +
                                i * p.lse.token) = row_lse(h);
    return {p.out.data + item.b * p.out.batch + n * p.out.head + i * p.out.token, p.out_type,
            factor};
  }

  __device__ __forceinline__ void merge_warps() {
    static_assert(S::kWm == 1 && S::kWd == 1);
    static_assert(S::kWn * 16 * (S::kDv + 2) * 4 <= 2 * S::kStages * S::kStageElements);
    __syncthreads();  // the ring is free
    float* const part = reinterpret_cast<float*>(ring);
    RowHead* const heads = reinterpret_cast<RowHead*>(part + S::kWn * 16 * S::kDv);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = own_row(half);
      if (lane % 4 == 0) heads[wn * 16 + row] = {max[half], sum[half]};
#pragma unroll
      for (int d = 0; d < kDn; ++d)
        *reinterpret_cast<float2*>(&part[(wn * 16 + row) * S::kDv + d * 8 + lane % 4 * 2]) =
            make_float2(acc[0][d][2 * half], acc[0][d][2 * half + 1]);
    }
    __syncthreads();
    for (int n = thread; n < rows() * (S::kDv / 2); n += S::kThreads) {
      const int row = n / (S::kDv / 2), c = n % (S::kDv / 2) * 2;
      RowHead all;
      for (int w = 0; w < S::kWn; ++w) all.max = fmaxf(all.max, heads[w * 16 + row].max);
      float x = 0, y = 0;
      for (int w = 0; w < S::kWn; ++w) {
        const RowHead& h = heads[w * 16 + row];
        const float scale = h.max == all.max ? 1.0f : exp2f((h.max - all.max) * p.c);
        all.sum += scale * h.sum;
        x += scale * part[(w * 16 + row) * S::kDv + c];
        y += scale * part[(w * 16 + row) * S::kDv + c + 1];
      }
      const Target to = target(row, all, c == 0);
      if (c < p.dv) write2(to.row, to.type, c, x * to.factor, y * to.factor);
    }
  }
};

}  // namespace regard::cuda::sm80
