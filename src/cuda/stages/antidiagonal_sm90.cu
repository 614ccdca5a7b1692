// Antidiagonal products by wgmma: 192 query groups by 128 key groups a work, copied by the tensor
// copy engine. The numbers are those of antidiagonal.cu.
//
// Blocks stay and take works in turns. Three warpgroups of 64 query groups multiply; while one
// scales and adds a token's integers, the tensor cores have the others' products. One thread of a
// fourth keeps kStages copies in flight, those of the next work under the exponentials of this one.
#include <cuda_runtime_api.h>

#include "cuda/device.h"
#include "cuda/ptx.h"
#include "cuda/sm90/wgmma.h"
#include "cuda/stages/antidiagonal.cuh"
#include "cuda/tensor_map.h"

namespace regard::cuda::stages {
namespace {

constexpr int kGroups = 3, kRows = 64 * kGroups, kCols = 128, kStages = 5;
constexpr int kConsumers = 128 * kGroups, kThreads = kConsumers + 128;
constexpr int kTurn = 2;           // barriers: a warpgroup's turn to issue a token's products
constexpr int kPitch = kCols + 1;  // of logits in shared memory
constexpr int kSets = kCols / 8;   // of eight columns, as accumulators come

// A work: rows g0 on and columns j0 on of head `bh`, from its tile of columns `tile` on. bh < 0: no
// more. `whole`: every row sees every column.
struct Work {
  int32_t bh, g0, j0, tile, whole;
};

struct Storage {
  alignas(1024) uint8_t q[kStages][kRows * kChunk * 2];
  alignas(1024) uint8_t k[kStages][kCols * kChunk * 2];
  alignas(128) float q_scale[kStages][kRows], k_scale[kStages][kCols];  // with a token's last chunk
  Work work[kStages];                                                   // with a work's first one
  uint64_t full[kStages], empty[kStages], drained;
};
constexpr int kBytes = int(sizeof(Storage));
static_assert(kBytes <= 227 << 10);
static_assert(offsetof(Storage, q_scale) >= kRows * kPitch * 4);

struct Maps {
  CUtensorMap q, k;              // f16 [pairs, stride, groups, padded]
  CUtensorMap q_scale, k_scale;  // f32 [1, pairs, stride, groups]
};

struct Slot {
  int at = 0;
  uint32_t phase = 0;
  __device__ void advance() {
    if (++at == kStages) at = 0, phase ^= 1;
  }
};

// Every gridDim.x-th of the works, which are counted along a row's columns, then rows, then heads:
// blocks in step share rows or columns in L2.
class Walk {
 public:
  __device__ explicit Walk(const Antidiagonal& p)
      : p_(p), tiles_(kCols / p.per_tile), width_(tiles_ * p.per_tile) {
    rows_ = (p.groups + kRows - 1) / kRows;
    columns_ = columns();
    move(int(blockIdx.x));
  }
  __device__ void next() { move(int(gridDim.x)); }
  __device__ Work work() const {
    if (bh_ == p_.pairs) return {-1, 0, 0, 0, 0};
    const int g0 = p_.first + row_ * kRows, j0 = column_ * width_;
    return {bh_, g0, j0, column_ * tiles_, visible(p_, g0) >= j0 + width_};
  }

 private:
  // Works of a row: as many as its last group sees.
  __device__ int columns() const {
    const int end = min((row_ + 1) * kRows, p_.groups);
    return (visible(p_, p_.first + end - 1) + width_ - 1) / width_;
  }
  __device__ void move(int by) {
    column_ += by;
    while (bh_ < p_.pairs && column_ >= columns_) {
      column_ -= columns_;
      if (++row_ == rows_) row_ = 0, ++bh_;
      columns_ = columns();
    }
  }

  const Antidiagonal& p_;
  const int tiles_, width_;
  int rows_, bh_ = 0, row_ = 0, column_ = 0, columns_;
};

// kTile: tiles of columns are that many sets, and leave from registers; 0: others, which need the
// stages' memory for their logits.
template <int kTile>
__device__ void produce(const Antidiagonal& p, const Maps& maps, Storage& s) {
  const int kv_heads = p.heads / p.group, chunks = p.q.padded / kChunk;
  Slot slot;
  uint32_t drained = 0;
  for (Walk walk(p);; walk.next(), drained ^= 1) {
    const Work w = walk.work();
    const int kv = w.bh / p.heads * kv_heads + w.bh % p.heads / p.group;
    if constexpr (kTile == 0) ptx::wait(&s.drained, drained ^ 1);
    if (w.bh < 0) {
      ptx::wait(&s.empty[slot.at], slot.phase ^ 1);
      s.work[slot.at] = w;
      ptx::arrive(&s.full[slot.at]);
      return;
    }
    for (int t = 0; t < p.stride; ++t)
      for (int c = 0; c < chunks; ++c, slot.advance()) {
        const int n = slot.at;
        const bool last = c == chunks - 1;
        ptx::wait(&s.empty[n], slot.phase ^ 1);
        if (t == 0 && c == 0) s.work[n] = w;
        ptx::arrive_expect(&s.full[n],
                           sizeof(s.q[n]) + sizeof(s.k[n]) +
                               (last ? sizeof(s.q_scale[n]) + sizeof(s.k_scale[n]) : 0));
        ptx::load4(ptx::shared(s.q[n]), &maps.q, &s.full[n], c * kChunk, w.g0, p.stride - 1 - t,
                   w.bh);
        ptx::load4(ptx::shared(s.k[n]), &maps.k, &s.full[n], c * kChunk, w.j0, t, kv);
        if (!last) continue;
        ptx::load4(ptx::shared(s.q_scale[n]), &maps.q_scale, &s.full[n], w.g0, p.stride - 1 - t,
                   w.bh, 0);
        ptx::load4(ptx::shared(s.k_scale[n]), &maps.k_scale, &s.full[n], w.j0, t, kv, 0);
      }
  }
}

// The sums of a warpgroup's 64 x 128 products over all tokens, as wgmma lays them out. The first
// slot is full.
__device__ void add_tokens(const Antidiagonal& p, Storage& s, int warpgroup, Slot& slot,
                           float (&sum)[kCols / 2]) {
  const int chunks = p.q.padded / kChunk, lane = threadIdx.x % 32;
  const int row = warpgroup * 64 + threadIdx.x % 128 / 32 * 16 + lane / 4;
  const auto release = [&](int n) {
    __syncwarp();
    if (lane == 0) ptx::arrive(&s.empty[n]);
  };
  float token[kCols / 2];
#pragma unroll
  for (int i = 0; i < kCols / 2; ++i) sum[i] = 0;
  for (int t = 0; t < p.stride; ++t) {
    int before = 0;
    for (int c = 0; c < chunks; ++c) {
      const int n = slot.at;
      ptx::wait(&s.full[n], slot.phase);
      const uint64_t q = wgmma::k_major(ptx::shared(s.q[n]) + warpgroup * 64 * kChunk * 2);
      const uint64_t k = wgmma::k_major(ptx::shared(s.k[n]));
      if (c == 0) ptx::sync(kTurn + warpgroup, 256);
      wgmma::pin(token);
      wgmma::fence();
#pragma unroll
      for (int d = 0; d < kChunk / 16; ++d)
        wgmma::Mma<__half, kCols>::ss(token, wgmma::moved(q, d * 32), wgmma::moved(k, d * 32),
                                      c > 0 || d > 0);
      wgmma::commit();
      if (c == chunks - 1) ptx::signal(kTurn + (warpgroup + 1) % kGroups, 256);
      if (c > 0) wgmma::wait<1>(), release(before);
      before = n;
      if (c < chunks - 1) slot.advance();
    }
    wgmma::wait<0>();
    wgmma::pin(token);
    const float* const k_scale = s.k_scale[slot.at] + lane % 4 * 2;
    const float q0 = s.q_scale[slot.at][row], q1 = s.q_scale[slot.at][row + 8];
#pragma unroll
    for (int g = 0; g < kCols / 8; ++g) {
      const float2 k = *reinterpret_cast<const float2*>(k_scale + g * 8);
      sum[4 * g] = fmaf(token[4 * g], q0 * k.x, sum[4 * g]);
      sum[4 * g + 1] = fmaf(token[4 * g + 1], q0 * k.y, sum[4 * g + 1]);
      sum[4 * g + 2] = fmaf(token[4 * g + 2], q1 * k.x, sum[4 * g + 2]);
      sum[4 * g + 3] = fmaf(token[4 * g + 3], q1 * k.y, sum[4 * g + 3]);
    }
    release(slot.at);
    slot.advance();
  }
}

// Maxima and sums of exponentials of a warpgroup's tiles of columns, kTile sets each, from the
// registers of the four lanes that share a row.
template <int kTile>
__device__ void finish_sets(const Antidiagonal& p, const Work& w, int row, float (&x)[kCols / 2]) {
  const int quad = threadIdx.x % 4, end = p.first + p.groups;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int g = w.g0 + row + 8 * half;
    const int seen = g >= end ? 0 : w.whole ? kCols : visible(p, g) - w.j0;  // columns of this work
    float2* const out = p.tiles + (int64_t(w.bh) * p.groups + g - p.first) * p.cols + w.tile;
    float own_top = 0, own_sum = 0;
#pragma unroll
    for (int tile = 0; tile < kSets / kTile; ++tile) {
      float y[kTile][2], top = -kInf;
#pragma unroll
      for (int n = 0; n < kTile; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int set = tile * kTile + n;
          y[n][i] = x[4 * set + 2 * half + i] * p.scale;
          if (set * 8 + quad * 2 + i >= seen) y[n][i] = -kInf;
          top = fmaxf(top, y[n][i]);
        }
      top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
      top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
      const float shift = top == -kInf ? 0 : top;
      float all = 0;
#pragma unroll
      for (int n = 0; n < kTile; ++n) {
        const float first = falling_exponential(y[n][0] - shift);
        const float second = falling_exponential(y[n][1] - shift);
        // Lane by lane, in the order of the columns: after step i the sum of lane i is right.
        float sum = all + first + second;
#pragma unroll
        for (int i = 1; i < 4; ++i) sum = __shfl_up_sync(~0u, sum, 1, 4) + first + second;
        all = __shfl_sync(~0u, sum, 3, 4);
      }
      // Of four tiles a lane stores one.
      if (tile % 4 == quad) own_top = top, own_sum = all;
      if (tile % 4 < 3 && tile < kSets / kTile - 1) continue;
      const int own = tile / 4 * 4 + quad;
      if (own <= tile && own * kTile * 8 < seen) out[own] = make_float2(own_top, own_sum);
    }
  }
}

template <int kTile>
__device__ void consume(const Antidiagonal& p, Storage& s) {
  const int warpgroup = __shfl_sync(~0u, int(threadIdx.x) / 128, 0), tiles = kCols / p.per_tile;
  const int row = warpgroup * 64 + threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;
  Slot slot;
  if (warpgroup == kGroups - 1) ptx::signal(kTurn, 256);
  while (true) {
    ptx::wait(&s.full[slot.at], slot.phase);
    const Work w = s.work[slot.at];
    if (w.bh < 0) break;
    float sum[kCols / 2];
    add_tokens(p, s, warpgroup, slot, sum);
    if constexpr (kTile > 0) {
      finish_sets<kTile>(p, w, row, sum);
    } else {
      ptx::sync(1, kConsumers);  // all products are done: their memory becomes that of the logits
      float* const logits = reinterpret_cast<float*>(&s);
#pragma unroll
      for (int i = 0; i < kCols / 2; ++i)
        logits[(row + i / 2 % 2 * 8) * kPitch + i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2] =
            sum[i] * p.scale;
      ptx::sync(1, kConsumers);
      const int end = min(w.g0 + kRows, p.first + p.groups);
      finish_tiles(p, logits, kRows, kPitch, w.bh, w.g0, end, w.j0, tiles, threadIdx.x, kConsumers);
      ptx::fence_async();
      ptx::arrive(&s.drained);
    }
  }
  if (warpgroup == 0) ptx::sync(kTurn, 256);  // the last one's signal
}

template <int kTile>
__global__ void __launch_bounds__(kThreads, 1)
    product_kernel(const __grid_constant__ Antidiagonal p, const __grid_constant__ Maps maps) {
  extern __shared__ char memory[];
  Storage& s = *reinterpret_cast<Storage*>(memory);
  if (ptx::shared(memory) % 1024 != 0) __trap();  // where the swizzle's rows begin
  if (threadIdx.x == 0) {
    for (int n = 0; n < kStages; ++n) ptx::init(&s.full[n], 1), ptx::init(&s.empty[n], 4 * kGroups);
    ptx::init(&s.drained, kConsumers);
    ptx::fence_init();
  }
  __syncthreads();
  if (threadIdx.x >= kConsumers) {
    ptx::give_registers<32>();
    if (threadIdx.x == kConsumers) produce<kTile>(p, maps, s);
  } else {
    ptx::take_registers<160>();
    consume<kTile>(p, s);
  }
}

// sizes and strides (bytes, of axes 1 and up), innermost axis first.
void describe(CUtensorMap* map, bool half, const void* data, const cuuint64_t (&size)[4],
              const cuuint64_t (&stride)[3], const cuuint32_t (&box)[4]) {
  const cuuint32_t steps[] = {1, 1, 1, 1};
  const CUresult r = encode_tiled()(
      map, half ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 4,
      const_cast<void*>(data), size, stride, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
      half ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_NONE,
      CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (r != CUDA_SUCCESS) check(cudaErrorInvalidValue, "cuTensorMapEncodeTiled");
}

void describe_levels(const Levels& x, int64_t pairs, cuuint32_t rows, CUtensorMap* levels,
                     CUtensorMap* scales) {
  const cuuint64_t token = cuuint64_t(x.padded) * 2, n = cuuint64_t(x.tokens);
  const cuuint64_t stride = cuuint64_t(x.stride), groups = cuuint64_t(x.groups);
  describe(levels, true, x.x, {cuuint64_t(x.padded), n / stride, stride, cuuint64_t(pairs)},
           {token, token * (n / stride), token * n}, {kChunk, rows, 1, 1});
  describe(scales, false, x.scale, {groups, stride, cuuint64_t(pairs), 1},
           {groups * 4, groups * 4 * stride, groups * 4 * stride * cuuint64_t(pairs)},
           {rows, 1, 1, 1});
}

template <int kTile>
void launch(const Antidiagonal& p, const Maps& maps, int sms, void* stream) {
  check(cudaFuncSetAttribute(product_kernel<kTile>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             kBytes),
        "antidiagonal products");
  product_kernel<kTile><<<unsigned(sms), kThreads, kBytes, cudaStream_t(stream)>>>(p, maps);
}

}  // namespace

void launch_antidiagonal_products_sm90(const Antidiagonal& p, int sms, void* stream) {
  Maps maps;
  describe_levels(p.q, p.pairs, kRows, &maps.q, &maps.q_scale);
  describe_levels(p.k, p.pairs / p.group, kCols, &maps.k, &maps.k_scale);
  p.per_tile == 8    ? launch<1>(p, maps, sms, stream)
  : p.per_tile == 16 ? launch<2>(p, maps, sms, stream)
                     : launch<0>(p, maps, sms, stream);
}

}  // namespace regard::cuda::stages
