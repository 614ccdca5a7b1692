// Pair by pair in f32: weights of features, and values skipped where the tensor cores' loop does
// not fit. A block has 16 rows, a warp 4 of them; a tile is 64 keys, two a lane.
#include "cuda/sm80/instance.h"
#include "cuda/sm80/pieces.cuh"

namespace regard::cuda::sm80 {
namespace {

constexpr int kWarps = 4, kOwn = 4, kRows = kWarps * kOwn;
constexpr int kKeys = 64, kStep = 64, kMaxDv = 512;
constexpr uint32_t kForbidden = 0x80000000u;  // minus zero as a weight

// What merge_pieces asks for.
struct Shape {
  static constexpr bool kLean = false;
  static constexpr int kDv = kMaxDv, kThreads = 32 * kWarps;
};

template <class T>
__device__ float2 pair_at(const char* row, int c);
template <>
__device__ float2 pair_at<__half>(const char* row, int c) {
  return __half22float2(*reinterpret_cast<const __half2*>(row + c * 2));
}
template <>
__device__ float2 pair_at<__nv_bfloat16>(const char* row, int c) {
  return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(row + c * 2));
}

__device__ float read(const char* at, Type type) {
  if (type == Type::f32) return *reinterpret_cast<const float*>(at);
  if (type == Type::f16) return to_float(*reinterpret_cast<const __half*>(at));
  return to_float(*reinterpret_cast<const __nv_bfloat16*>(at));
}

// 2^(e - top) of a row's log2 features.
__device__ float raised(float e, float top) { return e == top ? 1.0f : exp2f(e - top); }

template <class T>
class Block {
 public:
  __device__ Block(const Params& p, const Item& item, float (*keys)[kStep + 1],
                   float (*queries)[kStep], int* ids)
      : p_(p),
        item_(item),
        warp_(threadIdx.x / 32),
        lane_(threadIdx.x % 32),
        kv_head_(item.h0 / p.group),
        keys_(keys),
        queries_(queries),
        ids_(ids) {
    for (int u = 0; u < kOwn; ++u) {
      own_[u] = {};
      for (float2& a : acc_[u]) a = make_float2(0, 0);
    }
  }

  __device__ void run() {
    for (int t = item_.begin; t < item_.end; ++t) {
      float s[kOwn][2] = {};
      const int n = size(t);
      __syncthreads();  // the tile before has been read
      if (threadIdx.x < kKeys) ids_[threadIdx.x] = int(threadIdx.x) < n ? id(t, threadIdx.x) : -1;
      for (int r = 0; r < width(); r += kStep) multiply(r, s);
#pragma unroll
      for (int u = 0; u < kOwn; ++u) {
        if (row(u) >= rows()) continue;
        for (int half = 0; half < 2; ++half)
          s[u][half] = score(u, ids_[lane_ + 32 * half], s[u][half]);
        weigh(u, s[u]);
      }
      add_values(n, s);
    }
  }

  __device__ void write_rows() {
#pragma unroll
    for (int u = 0; u < kOwn; ++u) {
      if (row(u) >= rows()) continue;
      RowHead h = own_[u];
      for (int d = 16; d > 0; d /= 2) h.sum += __shfl_xor_sync(~0u, h.sum, d);
      const int i = query_of<Shape>(p_, item_, row(u)), head = head_of(u);
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
      for (int k = 0; k < kMaxDv / 64; ++k) {
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
  __device__ int64_t query_at(int r) const {  // in rows of features
    const int heads = p_.group * p_.kv_heads;
    return (int64_t(item_.b) * heads + item_.h0 + r % item_.heads) * p_.nq +
           query_of<Shape>(p_, item_, r);
  }
  __device__ int64_t key_at(int key) const {
    return (int64_t(item_.b) * p_.kv_heads + kv_head_) * p_.nk + key;
  }

  // s += products of channels (features) [first, first + kStep).
  __device__ void multiply(int first, float (&s)[kOwn][2]) {
    __syncthreads();
    for (int e = threadIdx.x; e < kKeys * kStep; e += 32 * kWarps) {
      const int j = e / kStep, c = first + e % kStep, key = ids_[j];
      float x = 0;
      if (key >= 0 && c < width())
        x = p_.features > 0
                ? raised(p_.k_features[key_at(key) * p_.features + c], p_.k_top[key_at(key)])
                : to_float(reinterpret_cast<const T*>(key_row(p_.k, p_.k_page, key))[c]);
      keys_[j][e % kStep] = x;
    }
    for (int e = threadIdx.x; e < kRows * kStep; e += 32 * kWarps) {
      const int r = e / kStep, c = first + e % kStep;
      float x = 0;
      if (r < rows() && c < width())
        x = p_.features > 0
                ? raised(p_.q_features[query_at(r) * p_.features + c], p_.q_top[query_at(r)])
                : to_float(reinterpret_cast<const T*>(
                      p_.q.data + item_.b * p_.q.batch + (item_.h0 + r % item_.heads) * p_.q.head +
                      query_of<Shape>(p_, item_, r) * p_.q.token)[c]);
      queries_[r][e % kStep] = x;
    }
    __syncthreads();
#pragma unroll 8
    for (int c = 0; c < kStep; ++c) {
      const float a = keys_[lane_][c], b = keys_[lane_ + 32][c];
#pragma unroll
      for (int u = 0; u < kOwn; ++u) {
        const float q = queries_[row(u)][c];
        s[u][0] = fmaf(q, a, s[u][0]), s[u][1] = fmaf(q, b, s[u][1]);
      }
    }
  }

  // A product as a score in units of log2 e; -inf: forbidden.
  __device__ float score(int u, int key, float product) const {
    if (key < 0) return -kInf;
    const int i = query_of<Shape>(p_, item_, row(u)), head = head_of(u);
    if (!((key >= p_.lo[i] && key < p_.hi[i]) || key < p_.sink[i])) return -kInf;
    if (p_.mask) {
      const uint64_t* words =
          p_.mask + item_.b * p_.mask_batch + head * p_.mask_head + i * p_.mask_row;
      if (!(words[key >> 6] >> (key & 63) & 1)) return -kInf;
    }
    if (p_.features > 0) return log_product(query_at(row(u)), key_at(key), product);
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
  __device__ float log_product(int64_t q, int64_t k, float sum) const {
    if (!(sum < 0x1p-90f)) return p_.q_top[q] + p_.k_top[k] + log2f(sum);
    const float *a = p_.q_features + q * p_.features, *b = p_.k_features + k * p_.features;
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

  __device__ void add_values(int n, const float (&s)[kOwn][2]) {
    for (int j = 0; j < n; ++j) {
      float w[kOwn];
      bool any = false;
#pragma unroll
      for (int u = 0; u < kOwn; ++u) {
        w[u] = __shfl_sync(~0u, j < 32 ? s[u][0] : s[u][1], j % 32);
        any |= row(u) < rows() && __float_as_uint(w[u]) != kForbidden;
      }
      if (!any) continue;
      const char* const v = key_row(p_.v, p_.v_page, ids_[j]);
#pragma unroll
      for (int k = 0; k < kMaxDv / 64; ++k) {
        const int c = k * 64 + lane_ * 2;
        if (c >= p_.dv) break;
        const float2 x = pair_at<T>(v, c);
#pragma unroll
        for (int u = 0; u < kOwn; ++u) {
          if (__float_as_uint(w[u]) == kForbidden) continue;
          acc_[u][k].x = fmaf(w[u], x.x, acc_[u][k].x),
          acc_[u][k].y = fmaf(w[u], x.y, acc_[u][k].y);
        }
      }
    }
  }

  const Params& p_;
  const Item& item_;
  const int warp_, lane_, kv_head_;
  float (*const keys_)[kStep + 1];
  float (*const queries_)[kStep];
  int* const ids_;
  RowHead own_[kOwn];  // sums: a lane's share
  float2 acc_[kOwn][kMaxDv / 64];
};

template <class T>
__global__ void __launch_bounds__(32 * kWarps) pairs_kernel(const __grid_constant__ Params p) {
  __shared__ float keys[kKeys][kStep + 1], queries[kRows][kStep];
  __shared__ int ids[kKeys];
  const Item item = p.items[blockIdx.x];
  Block<T> block(p, item, keys, queries, ids);
  block.run();
  block.write_rows();
  if (p.done && item.pieces > 1) merge_pieces<Shape>(p, item);
}

template <class T>
int prepare() {
  int blocks = 0;
  cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, pairs_kernel<T>, 32 * kWarps, 0);
  return blocks;
}

template <class T>
void launch(const Params& p, int64_t items, bool, void* stream) {
  pairs_kernel<T><<<unsigned(items), 32 * kWarps, 0, cudaStream_t(stream)>>>(p);
}

// One warp a row: log2 phi and the greatest of it.
template <class T>
__global__ void features_kernel(const __grid_constant__ FeatureParams p) {
  constexpr float kLog2e = 1.4426950408889634f;
  __shared__ float rows[kWarps][576];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t n = int64_t(blockIdx.x) * kWarps + warp;
  if (n >= p.rows) return;
  const int i = int(n % p.n), h = int(n / p.n % p.heads);
  const int64_t b = n / p.n / p.heads;
  const char* from = p.from.data + h * p.from.head;
  from += p.pages ? p.pages[b * p.pages_row + (i >> p.page_shift)] * p.page +
                        (i & p.page_mask) * p.from.token
                  : b * p.from.batch + i * p.from.token;
  float* const x = rows[warp];
  float most = -kInf, sum = 0, squares = 0;
  for (int c = lane; c < p.d; c += 32) {
    x[c] = to_float(reinterpret_cast<const T*>(from)[c]);
    most = fmaxf(most, x[c]), squares = fmaf(x[c], x[c], squares);
  }
  for (int d = 16; d > 0; d /= 2) {
    most = fmaxf(most, __shfl_xor_sync(~0u, most, d));
    squares += __shfl_xor_sync(~0u, squares, d);
  }
  __syncwarp();
  for (int c = lane; c < p.d; c += 32) sum += expf(x[c] - most);
  for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(~0u, sum, d);
  float top = -kInf;
  for (int r = lane; r < p.m; r += 32) {
    float e;
    if (p.kind == WeightKind::random) {
      float dot = 0;
      for (int c = 0; c < p.d; ++c) dot = fmaf(p.directions[c * p.m + r], x[c], dot);
      e = p.factor * dot - p.half * squares + p.offset;
    } else if (p.kind == WeightKind::softmax) {
      e = (x[r] - most) * kLog2e - log2f(sum);
    } else if (p.kind == WeightKind::elu) {
      e = (x[r] > 0 ? log1pf(x[r]) : x[r]) * kLog2e;
    } else {
      e = x[r] < 0 ? -kInf : log2f(x[r]);  // NaN stays
    }
    p.to[n * p.m + r] = e;
    top = fmaxf(top, e);
  }
  for (int d = 16; d > 0; d /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, d));
  if (lane == 0) p.top[n] = top == -kInf ? 0 : top;
}

}  // namespace

const Instance& pairs_instance(Type type) {
  static const Instance bf16 = {
      "pairs_bf16",           Type::bf16,           Kind::any, 576, kMaxDv, kRows, kKeys,
      prepare<__nv_bfloat16>, launch<__nv_bfloat16>};
  static const Instance f16 = {"pairs_f16", Type::f16, Kind::any,       576,           kMaxDv,
                               kRows,       kKeys,     prepare<__half>, launch<__half>};
  return type == Type::bf16 ? bf16 : f16;
}

void launch_features(const FeatureParams& p, void* stream) {
  const unsigned blocks = unsigned((p.rows + kWarps - 1) / kWarps);
  if (p.type == Type::bf16) {
    features_kernel<__nv_bfloat16><<<blocks, 32 * kWarps, 0, cudaStream_t(stream)>>>(p);
  } else {
    features_kernel<__half><<<blocks, 32 * kWarps, 0, cudaStream_t(stream)>>>(p);
  }
}

}  // namespace regard::cuda::sm80
