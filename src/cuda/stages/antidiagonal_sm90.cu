// Antidiagonal products by wgmma: 192 query groups by 128 key groups a block, copied by the tensor
// copy engine. The numbers are those of antidiagonal.cu.
//
// Three warpgroups of 64 query groups multiply; while one scales and adds a token's integers, the
// tensor cores have the others' products. One thread of a fourth keeps kStages copies in flight.
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
constexpr int kPitch = kCols + 1;  // of logits in shared memory

struct Storage {
  alignas(1024) uint8_t q[kStages][kRows * kChunk * 2];
  alignas(1024) uint8_t k[kStages][kCols * kChunk * 2];
  alignas(128) float q_scale[kStages][kRows], k_scale[kStages][kCols];  // with a token's last chunk
  uint64_t full[kStages], empty[kStages];
};
constexpr int kBytes = int(sizeof(Storage)) + 1024;
static_assert(kBytes <= 227 << 10);
static_assert(offsetof(Storage, q_scale) >= kRows * kPitch * 4);

struct Maps {
  CUtensorMap q, k;              // f16 [pairs, groups, stride, padded]
  CUtensorMap q_scale, k_scale;  // f32 [1, pairs, stride, groups]
};

struct Slot {
  int at = 0;
  uint32_t phase = 0;
  __device__ void advance() {
    if (++at == kStages) at = 0, phase ^= 1;
  }
};

__device__ void produce(const Antidiagonal& p, const Maps& maps, Storage& s, int g0, int j0) {
  const int bh = blockIdx.z, b = bh / p.heads, kv_heads = p.heads / p.group;
  const int kv = b * kv_heads + bh % p.heads / p.group;
  const int chunks = p.q.padded / kChunk;
  Slot slot;
  for (int t = 0; t < p.stride; ++t)
    for (int c = 0; c < chunks; ++c, slot.advance()) {
      const int n = slot.at;
      const bool last = c == chunks - 1;
      ptx::wait(&s.empty[n], slot.phase ^ 1);
      ptx::arrive_expect(&s.full[n], sizeof(s.q[n]) + sizeof(s.k[n]) +
                                         (last ? sizeof(s.q_scale[n]) + sizeof(s.k_scale[n]) : 0));
      ptx::load4(ptx::shared(s.q[n]), &maps.q, &s.full[n], c * kChunk, p.stride - 1 - t, g0, bh);
      ptx::load4(ptx::shared(s.k[n]), &maps.k, &s.full[n], c * kChunk, t, j0, kv);
      if (!last) continue;
      ptx::load4(ptx::shared(s.q_scale[n]), &maps.q_scale, &s.full[n], g0, p.stride - 1 - t, bh, 0);
      ptx::load4(ptx::shared(s.k_scale[n]), &maps.k_scale, &s.full[n], j0, t, kv, 0);
    }
}

// The sums of a warpgroup's 64 x 128 products over all tokens, as wgmma lays them out.
__device__ void consume(const Antidiagonal& p, Storage& s, int warpgroup, float (&sum)[64]) {
  const int chunks = p.q.padded / kChunk, lane = threadIdx.x % 32;
  const int row = warpgroup * 64 + threadIdx.x % 128 / 32 * 16 + lane / 4;
  float token[64];
  Slot slot;
  for (int t = 0; t < p.stride; ++t) {
    const Slot first = slot;
    for (int c = 0; c < chunks; ++c) {
      const int n = slot.at;
      ptx::wait(&s.full[n], slot.phase);
      const uint64_t q = wgmma::k_major(ptx::shared(s.q[n]) + warpgroup * 64 * kChunk * 2);
      const uint64_t k = wgmma::k_major(ptx::shared(s.k[n]));
      wgmma::pin(token);
      wgmma::fence();
#pragma unroll
      for (int d = 0; d < kChunk / 16; ++d)
        wgmma::Mma<__half, kCols>::ss(token, wgmma::moved(q, d * 32), wgmma::moved(k, d * 32),
                                      c > 0 || d > 0);
      wgmma::commit();
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
    slot.advance();
    __syncwarp();
    if (lane == 0)
      for (Slot done = first; done.at != slot.at; done.advance()) ptx::arrive(&s.empty[done.at]);
  }
}

__global__ void __launch_bounds__(kThreads, 1)
    product_kernel(const __grid_constant__ Antidiagonal p, const __grid_constant__ Maps maps) {
  extern __shared__ char memory[];
  const int tiles = kCols / p.per_tile;
  const int g0 = p.first + blockIdx.y * kRows, j0 = blockIdx.x * tiles * p.per_tile;
  const int end = min(g0 + kRows, p.first + p.groups);
  if (visible(p, end - 1) <= j0) return;
  Storage& s =
      *reinterpret_cast<Storage*>((reinterpret_cast<uintptr_t>(memory) + 1023) / 1024 * 1024);
  if (threadIdx.x == 0) {
    for (int n = 0; n < kStages; ++n) ptx::init(&s.full[n], 1), ptx::init(&s.empty[n], 4 * kGroups);
    ptx::fence_init();
  }
  __syncthreads();
  const int warpgroup = threadIdx.x / 128;
  if (warpgroup == kGroups) {
    ptx::give_registers<32>();
    if (threadIdx.x == kConsumers) produce(p, maps, s, g0, j0);
    return;
  }
  ptx::take_registers<160>();
  float sum[64] = {};
  consume(p, s, warpgroup, sum);
  ptx::sync(1, kConsumers);  // all products are done: their memory becomes that of the logits
  float* const logits = reinterpret_cast<float*>(&s);
  const int row = warpgroup * 64 + threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;
#pragma unroll
  for (int i = 0; i < 64; ++i)
    logits[(row + i / 2 % 2 * 8) * kPitch + i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2] =
        sum[i] * p.scale;
  ptx::sync(1, kConsumers);
  finish_tiles(p, logits, kRows, kPitch, g0, end, j0, tiles, threadIdx.x, kConsumers);
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
  describe(levels, true, x.x, {cuuint64_t(x.padded), stride, n / stride, cuuint64_t(pairs)},
           {token, token * stride, token * n}, {kChunk, 1, rows, 1});
  describe(scales, false, x.scale, {groups, stride, cuuint64_t(pairs), 1},
           {groups * 4, groups * 4 * stride, groups * 4 * stride * cuuint64_t(pairs)},
           {rows, 1, 1, 1});
}

}  // namespace

void launch_antidiagonal_products_sm90(const Antidiagonal& p, void* stream) {
  Maps maps;
  describe_levels(p.q, p.pairs, kRows, &maps.q, &maps.q_scale);
  describe_levels(p.k, p.pairs / p.group, kCols, &maps.k, &maps.k_scale);
  const int width = kCols / p.per_tile * p.per_tile;
  check(cudaFuncSetAttribute(product_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
        "antidiagonal products");
  const dim3 blocks(unsigned((p.k_groups + width - 1) / width),
                    unsigned((p.groups + kRows - 1) / kRows), unsigned(p.pairs));
  product_kernel<<<blocks, kThreads, kBytes, cudaStream_t(stream)>>>(p, maps);
}

}  // namespace regard::cuda::stages
