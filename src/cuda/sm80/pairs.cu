// Pair by pair in f32: weights of features, and values skipped where the tensor cores' loop does
// not fit. A block has rows for 4 warps, a warp kOwn of them; a tile is 64 keys, two a lane.
#include "cuda/sm80/instance.h"
#include "cuda/sm80/pieces.cuh"
#include "cuda/sm80/rows.cuh"
#include "cuda/sm80/start.cuh"
#include "cuda/sm80/whole.cuh"

namespace regard::cuda::sm80 {
namespace {

constexpr int kWarps = 4, kKeys = kStateKeys, kStep = 64;  // channels at a time
constexpr uint32_t kForbidden = 0x80000000u;               // minus zero as a weight

// Values of at most kDv channels: what is kept of a row limits the rows of a warp.
template <class T_, int kDv_, int kOwn_>
struct Shape {
  using T = T_;
  static constexpr bool kLean = false;
  static constexpr int kDv = kDv_, kOwn = kOwn_, kRows = kWarps * kOwn, kThreads = 32 * kWarps;
};

template <class S>
struct Memory {
  union {
    float keys[kKeys][kStep + 1];
    uint4 values[kKeys][16];  // up to 128 channels, after the keys have been read
  };
  alignas(16) float queries[S::kRows][kStep];
  int4 row[S::kRows];  // {lo, hi, sink, query}
  int id[kKeys];       // -1: past the tile's end
  float key_top[kKeys], query_top[S::kRows];
};

__device__ float read(const char* at, Type type) {
  if (type == Type::f32) return *reinterpret_cast<const float*>(at);
  if (type == Type::f16) return to_float(*reinterpret_cast<const __half*>(at));
  return to_float(*reinterpret_cast<const __nv_bfloat16*>(at));
}

// 2^(e - top) of a row's log2 features.
__device__ float raised(float e, float top) { return e == top ? 1.0f : exp2_fast(e - top); }

template <class S>
class Block {
  using T = typename S::T;
  static constexpr int kOwn = S::kOwn;

 public:
  __device__ Block(const Params& p, const Item& item, Memory<S>& memory)
      : p_(p),
        item_(item),
        warp_(threadIdx.x / 32),
        lane_(threadIdx.x % 32),
        kv_head_(item.h0 / p.group),
        m_(memory) {
    for (int u = 0; u < kOwn; ++u) {
      own_[u] = {};
      for (float2& a : acc_[u]) a = make_float2(0, 0);
    }
    for (int n = threadIdx.x; n < S::kRows; n += S::kThreads) {
      const int r = min(n, rows() - 1), i = query_of<S>(p, item, r);
      m_.row[n] = make_int4(p.lo[i], p.hi[i], p.sink[i], i);
      m_.query_top[n] = p.features > 0 ? p.q_top[query_at(r, i)] : 0;
    }
    __syncthreads();
    if (p.whole.bits) start_from_sums();
  }

  __device__ void run() {
    for (int t = next(item_.begin); t < item_.end; t = next(t + 1)) {
      float s[kOwn][2] = {};
      const int n = size(t);
      __syncthreads();  // the tile before has been read
      if (threadIdx.x < kKeys) {
        const int key = int(threadIdx.x) < n ? id(t, threadIdx.x) : -1;
        m_.id[threadIdx.x] = key;
        m_.key_top[threadIdx.x] = p_.features > 0 && key >= 0 ? p_.k_top[key_at(key)] : 0;
      }
      summed_ = summed(id(t, 0) / kStateKeys);
      for (int r = 0; r < width(); r += kStep) multiply(r, s);
#pragma unroll
      for (int u = 0; u < kOwn; ++u) {
        if (row(u) >= rows()) continue;
        s[u][0] = score(t, u, lane_, s[u][0]), s[u][1] = score(t, u, lane_ + 32, s[u][1]);
        weigh(u, s[u]);
      }
      bool clean = true;
#pragma unroll
      for (int u = 0; u < kOwn; ++u)
        for (int half = 0; half < 2; ++half)
          clean &= row(u) >= rows() || lane_ + 32 * half >= n ||
                   __float_as_uint(s[u][half]) != kForbidden;
      if (S::kDv == 128) stage_values(n);
      __all_sync(~0u, clean) ? add_values<true>(n, s) : add_values<false>(n, s);
    }
  }

  __device__ void write_rows() {
#pragma unroll
    for (int u = 0; u < kOwn; ++u) {
      if (row(u) >= rows()) continue;
      RowHead h = own_[u];
      for (int d = 16; d > 0; d /= 2) h.sum += __shfl_xor_sync(~0u, h.sum, d);
      const int i = m_.row[row(u)].w, head = head_of(u);
      char* out = p_.out.data + item_.b * p_.out.batch + head * p_.out.head + i * p_.out.token;
      Type type = p_.out_type;
      float factor = 1;
      if (item_.slot >= 0) {
        const int64_t slot = item_.slot + row(u);
        if (lane_ == 0)
          *reinterpret_cast<float2*>(p_.part_head + 2 * slot) = make_float2(h.max, h.sum);
        out = reinterpret_cast<char*>(p_.part_acc + slot * p_.dv), type = Type::f32;
      } else {
        factor = finish_factor(h, false, p_.sink_logit ? p_.sink_logit + head : nullptr);
        if (lane_ == 0 && p_.lse.data)
          *reinterpret_cast<float*>(p_.lse.data + item_.b * p_.lse.batch + head * p_.lse.head +
                                    i * p_.lse.token) = row_lse(h);
      }
#pragma unroll
      for (int k = 0; k < S::kDv / 64; ++k) {
        const int c = k * 64 + lane_ * 2;
        if (c < p_.dv) write2(out, type, c, acc_[u][k].x * factor, acc_[u][k].y * factor);
      }
    }
  }

 private:
  __device__ int rows() const { return item_.queries * item_.heads; }
  __device__ int row(int u) const { return warp_ + kWarps * u; }
  __device__ int head_of(int u) const { return item_.h0 + row(u) % item_.heads; }
  __device__ int width() const { return p_.features > 0 ? p_.features : p_.dk; }

  // The rows' Partials of the blocks that come as sums.
  __device__ void start_from_sums() {
    const int heads = p_.group * p_.kv_heads;
    whole_ = whole_bits(p_.whole, item_.b, item_.h0, heads, item_.i0 / p_.whole.rows);
    loose_ = p_.loose + (int64_t(item_.b) * p_.kv_heads + kv_head_) * p_.whole.words * 32;
    bool steady = true;
    for (int r = threadIdx.x; r < rows(); r += S::kThreads) steady &= is_steady(m_.query_top[r]);
    steady_ = __syncthreads_and(steady);
#pragma unroll
    for (int u = 0; u < kOwn; ++u) {
      if (row(u) >= rows() || item_.begin > 0) continue;
      const int64_t at = query_at(row(u), m_.row[row(u)].w);
      const float2 head = *reinterpret_cast<const float2*>(p_.start_head + 2 * at);
      own_[u].max = head.x, own_[u].sum = lane_ == 0 ? head.y : 0;
#pragma unroll
      for (int k = 0; k < S::kDv / 64; ++k) {
        const int c = k * 64 + lane_ * 2;
        if (c < p_.dv) acc_[u][k] = *reinterpret_cast<const float2*>(p_.start_acc + at * p_.dv + c);
      }
    }
  }
  // Whether steady rows have this block of keys among their sums.
  __device__ bool summed(int block) const {
    return whole_ && whole_[block / 32] >> block % 32 & 1 && !loose_[block];
  }
  // The first tile from t on that some row reads pair by pair.
  __device__ int next(int t) const {
    if (!whole_ || !steady_) return t;
    for (; t < item_.end; t += 32) {
      const bool here = t + lane_ < item_.end && !summed(id(t + lane_, 0) / kStateKeys);
      if (const unsigned found = __ballot_sync(~0u, here)) return t + __ffs(int(found)) - 1;
    }
    return t;
  }

  // Tiles as KeyTiles has them: of [0, sink), then of [lo, hi) cut at multiples of 64; or of a
  // list.
  __device__ int size(int t) const {
    if (p_.index) return min(kKeys, item_.keys - t * kKeys);
    if (t < item_.sink_tiles) return min(kKeys, item_.sink - t * kKeys);
    const int c = item_.lo / kKeys + t - item_.sink_tiles;
    return min(item_.hi, (c + 1) * kKeys) - max(item_.lo, c * kKeys);
  }
  __device__ int id(int t, int j) const {
    if (p_.index) {
      const uint32_t at = uint32_t(t) * kKeys + j, entry = at / uint32_t(p_.bk);
      const uint32_t column = p_.index[item_.entries + entry] & 0x7fffffff;
      return int(column * p_.bk + (at - entry * p_.bk));
    }
    if (t < item_.sink_tiles) return t * kKeys + j;
    return max(item_.lo, (item_.lo / kKeys + t - item_.sink_tiles) * kKeys) + j;
  }

  __device__ const char* key_row(const Rows& x, int64_t page, int key) const {
    const char* const head = x.data + kv_head_ * x.head;
    if (!p_.pages) return head + item_.b * x.batch + key * x.token;
    return head + p_.pages[item_.b * p_.pages_row + (key >> p_.page_shift)] * page +
           (key & p_.page_mask) * x.token;
  }
  // Rows of features.
  __device__ int64_t query_at(int r, int i) const {
    const int heads = p_.group * p_.kv_heads;
    return (int64_t(item_.b) * heads + item_.h0 + r % item_.heads) * p_.nq + i;
  }
  __device__ int64_t key_at(int key) const {
    return (int64_t(item_.b) * p_.kv_heads + kv_head_) * p_.nk + key;
  }

  // Channel (feature) c of rows j, j + step, ..: loads of no row are of row 0.
  template <int kCount>
  __device__ void load_keys(int j, int step, int c, float (&x)[kCount]) const {
    if (p_.features > 0) {
#pragma unroll
      for (int e = 0; e < kCount; ++e)
        x[e] = p_.k_features[key_at(max(m_.id[j + e * step], 0)) * p_.features + c];
    } else {
#pragma unroll
      for (int e = 0; e < kCount; ++e)
        x[e] = to_float(
            reinterpret_cast<const T*>(key_row(p_.k, p_.k_page, max(m_.id[j + e * step], 0)))[c]);
    }
  }
  template <int kCount>
  __device__ void load_queries(int r, int step, int c, float (&x)[kCount]) const {
#pragma unroll
    for (int e = 0; e < kCount; ++e) {
      const int own = min(r + e * step, rows() - 1), i = m_.row[own].w;
      const int head = item_.h0 + own % item_.heads;
      const char* const q = p_.q.data + item_.b * p_.q.batch + head * p_.q.head + i * p_.q.token;
      x[e] = p_.features > 0 ? p_.q_features[query_at(own, i) * p_.features + c]
                             : to_float(reinterpret_cast<const T*>(q)[c]);
    }
  }

  // s += products of channels (features) [first, first + kStep). Loads stand in no branch, so that
  // many are in flight.
  __device__ void multiply(int first, float (&s)[kOwn][2]) {
    constexpr int kRows = S::kThreads / kStep, kAtOnce = 8;
    __syncthreads();
    const int own = threadIdx.x % kStep, r0 = threadIdx.x / kStep;
    const bool here = first + own < width();
    const int c = min(first + own, width() - 1);
#pragma unroll 1
    for (int j = r0; j < kKeys; j += kRows * kAtOnce) {
      float x[kAtOnce];
      load_keys(j, kRows, c, x);
#pragma unroll
      for (int e = 0; e < kAtOnce; ++e) {
        if (p_.features > 0) x[e] = raised(x[e], m_.key_top[j + e * kRows]);
        m_.keys[j + e * kRows][own] = here && m_.id[j + e * kRows] >= 0 ? x[e] : 0;
      }
    }
    constexpr int kQueries = S::kRows / kRows < kAtOnce ? S::kRows / kRows : kAtOnce;
#pragma unroll 1
    for (int r = r0; r < S::kRows; r += kRows * kQueries) {
      float x[kQueries];
      load_queries(r, kRows, c, x);
#pragma unroll
      for (int e = 0; e < kQueries; ++e) {
        if (p_.features > 0) x[e] = raised(x[e], m_.query_top[r + e * kRows]);
        m_.queries[r + e * kRows][own] = here && r + e * kRows < rows() ? x[e] : 0;
      }
    }
    __syncthreads();
#pragma unroll 4
    for (int k = 0; k < kStep; k += 4) {
      float a[4], b[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) a[e] = m_.keys[lane_][k + e], b[e] = m_.keys[lane_ + 32][k + e];
#pragma unroll
      for (int u = 0; u < kOwn; ++u) {
        const float4 q = *reinterpret_cast<const float4*>(&m_.queries[row(u)][k]);
        s[u][0] = fmaf(q.w, a[3], fmaf(q.z, a[2], fmaf(q.y, a[1], fmaf(q.x, a[0], s[u][0]))));
        s[u][1] = fmaf(q.w, b[3], fmaf(q.z, b[2], fmaf(q.y, b[1], fmaf(q.x, b[0], s[u][1]))));
      }
    }
  }

  // A product as a score in units of log2 e; -inf: forbidden.
  __device__ float score(int t, int u, int j, float product) const {
    const int4 r = m_.row[row(u)];
    const int key = m_.id[j], i = r.w, head = head_of(u);
    if (key < 0 || !((key >= r.x && key < r.y) || key < r.z)) return -kInf;
    if (p_.mask) {
      const uint64_t* words =
          p_.mask + item_.b * p_.mask_batch + head * p_.mask_head + i * p_.mask_row;
      if (!(words[key >> 6] >> (key & 63) & 1)) return -kInf;
    }
    if (p_.tile_pairs) {
      const int64_t entry = item_.entries + t;
      if (!(p_.tile_pairs[entry * kPairRows + i % kPairRows] >> j & 1)) return -kInf;
    }
    if (summed_ && is_steady(m_.query_top[row(u)])) return -kInf;
    if (p_.features > 0) return log_product(u, j, product);
    return logit(i, head, key, product);
  }

  __device__ float logit(int i, int head, int key, float product) const {
    constexpr float kLog2e = 1.4426950408889634f;
    if (p_.plain) return product * p_.c;
    float x = product * p_.factor;
    if (p_.cap > 0) x = p_.cap * tanhf(x);
    if (p_.alibi) x -= p_.alibi[head] * fabsf(float(p_.position[i]) - float(key));
    if (p_.bias.data) {
      const float bias = read(p_.bias.data + item_.b * p_.bias.batch + head * p_.bias.head +
                                  i * p_.bias.token + key * p_.bias_key,
                              p_.bias_type);
      if (bias == -kInf) return bias;
      x += kLog2e * (p_.bias_scale ? p_.bias_scale[head] : 1.0f) * bias;
    }
    if (p_.key_bias.data)
      x += kLog2e *
           *reinterpret_cast<const float*>(p_.key_bias.data + item_.b * p_.key_bias.batch +
                                           kv_head_ * p_.key_bias.head + key * p_.key_bias.token);
    return x;
  }

  // log2 phi(q) . phi(k), of the sum relative to both rows' greatest features; where that comes
  // near f32's smallest numbers, once more relative to the greatest product.
  __device__ float log_product(int u, int j, float sum) const {
    if (!(sum < 0x1p-90f)) return m_.query_top[row(u)] + m_.key_top[j] + log2f(sum);
    const float* const a = p_.q_features + query_at(row(u), m_.row[row(u)].w) * p_.features;
    const float* const b = p_.k_features + key_at(m_.id[j]) * p_.features;
    float top = -kInf;
    for (int r = 0; r < p_.features; ++r) top = fmaxf(top, a[r] + b[r]);
    if (top == -kInf) return top;
    sum = 0;
    for (int r = 0; r < p_.features; ++r) sum += exp2f(a[r] + b[r] - top);
    return top + log2f(sum);
  }

  // Scores of two keys become weights; the row's maximum and accumulator follow. Weights of a row
  // that skips the tile stay in the sum alone.
  __device__ void weigh(int u, float (&s)[2]) {
    float top = fmaxf(s[0], s[1]);
    for (int d = 16; d > 0; d /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, d));
    const bool skip = p_.value_skip > 0 && top < own_[u].max - p_.value_skip;
    const float max = fmaxf(own_[u].max, top);
    const float scale = max == -kInf ? 1.0f : scale_to(own_[u].max, max);
    own_[u].max = max, own_[u].sum *= scale;
    for (float& x : s) {
      const bool forbidden = x == -kInf;
      if (!forbidden) own_[u].sum += x = scale_to(x, max);
      if (forbidden || skip) x = __uint_as_float(kForbidden);
    }
    if (scale == 1) return;
    for (float2& a : acc_[u]) a.x *= scale, a.y *= scale;
  }

  // All loads of a tile's values at once, in the place of its keys.
  __device__ void stage_values(int n) {
    __syncthreads();
#pragma unroll
    for (int e = threadIdx.x; e < kKeys * 16; e += S::kThreads) {
      const int j = e / 16, part = e % 16;
      if (j < n && part * 8 < p_.dv)
        m_.values[j][part] =
            *reinterpret_cast<const uint4*>(key_row(p_.v, p_.v_page, m_.id[j]) + part * 16);
    }
    __syncthreads();
  }

  // O += P V. kClean: no pair is forbidden; else such pairs must not touch infinities and NaN.
  template <bool kClean>
  __device__ void add_values(int n, const float (&s)[kOwn][2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll 4
      for (int j = 32 * half; j < min(n, 32 * half + 32); ++j) {
        float w[kOwn];
        bool any = false;
#pragma unroll
        for (int u = 0; u < kOwn; ++u) {
          w[u] = __shfl_sync(~0u, s[u][half], j % 32);
          any |= row(u) < rows() && __float_as_uint(w[u]) != kForbidden;
        }
        if (!kClean && !any) continue;
        const char* const v = S::kDv == 128 ? reinterpret_cast<const char*>(m_.values[j])
                                            : key_row(p_.v, p_.v_page, m_.id[j]);
#pragma unroll
        for (int k = 0; k < S::kDv / 64; ++k) {
          const int c = k * 64 + lane_ * 2;
          const float2 x = c < p_.dv ? pair_at<T>(v, c) : make_float2(0, 0);
#pragma unroll
          for (int u = 0; u < kOwn; ++u) {
            if (!kClean && __float_as_uint(w[u]) == kForbidden) continue;
            float2& to = acc_[u][k];
            to.x = fmaf(w[u], x.x, to.x), to.y = fmaf(w[u], x.y, to.y);
          }
        }
      }
  }

  const Params& p_;
  const Item& item_;
  const int warp_, lane_, kv_head_;
  Memory<S>& m_;
  const uint32_t* whole_ = nullptr;  // blocks that come as sums; null: none
  const uint8_t* loose_ = nullptr;   // those that do not after all
  bool steady_ = true;               // all rows are
  bool summed_ = false;              // this tile's block is
  RowHead own_[kOwn];                // sums: a lane's share
  float2 acc_[kOwn][S::kDv / 64];
};

template <class S>
__global__ void __launch_bounds__(S::kThreads, S::kDv == 128 ? 4 : 3)
    pairs_kernel(const __grid_constant__ Params p) {
  __shared__ Memory<S> memory;
  const Item item = p.items[blockIdx.x];
  Block<S> block(p, item, memory);
  block.run();
  block.write_rows();
  if (p.done && item.pieces > 1) merge_pieces<S>(p, item);
}

template <class S>
Instance instance(const char* name, Type type) {
  const auto prepare = [] {
    int blocks = 0;
    cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, pairs_kernel<S>, S::kThreads, 0);
    return blocks;
  };
  const auto launch = [](const Params& p, int64_t items, bool, void* stream) {
    start<Params>(pairs_kernel<S>, dim3(unsigned(items)), S::kThreads, p, stream);
  };
  return {name, type, Kind::any, 576, S::kDv, S::kRows, kKeys, prepare, launch};
}

}  // namespace

const Instance& pairs_instance(Type type, int64_t dv) {
  static const Instance all[] = {
      instance<Shape<__nv_bfloat16, 128, 8>>("pairs_128_bf16", Type::bf16),
      instance<Shape<__nv_bfloat16, 512, 4>>("pairs_512_bf16", Type::bf16),
      instance<Shape<__half, 128, 8>>("pairs_128_f16", Type::f16),
      instance<Shape<__half, 512, 4>>("pairs_512_f16", Type::f16),
  };
  return all[(type == Type::bf16 ? 0 : 2) + (dv > 128)];
}

}  // namespace regard::cuda::sm80
