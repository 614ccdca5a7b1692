// Means of tokens over blocks, and products of means; the arithmetic is that of
// stages/estimate/pooled_means.cc.
#include "cuda/stages/common.cuh"

namespace regard::cuda::stages {
namespace {

// One block a (batch, head, block of tokens), one thread a channel.
template <class T>
__global__ void means_kernel(const __grid_constant__ Means p) {
  const int64_t row = blockIdx.x;
  const int64_t bh = row / p.blocks;
  const int begin = p.first + int(row % p.blocks) * p.block;
  const int count = min(p.block, p.last - begin);
  const T* const x = row_of<T>(p.from, bh / p.from.heads, int(bh % p.from.heads), begin);
  const int64_t step = p.from.token / int64_t(sizeof(T));
  for (int c = threadIdx.x; c < p.from.channels; c += blockDim.x) {
    double sum = 0;
#pragma unroll 8
    for (int i = 0; i < count; ++i) sum += double(to_float(x[i * step + c]));
    const double mean = __ddiv_rn(sum, double(count));
    if (p.rounded) p.rounded[row * p.from.channels + c] = float(mean);
    if (p.exact) p.exact[row * p.from.channels + c] = mean;
  }
}

constexpr int kSide = 64, kDepth = 32, kOwn = 4;

// 64 x 64 products a block, 4 x 4 a thread; sums over channels in order, fused.
__global__ void __launch_bounds__(256) dots_kernel(const __grid_constant__ PooledDots p) {
  __shared__ float q[kDepth][kSide + 1], k[kDepth][kSide + 1];
  const int64_t bh = blockIdx.z;
  const int r0 = blockIdx.y * kSide, c0 = blockIdx.x * kSide;
  const int row = threadIdx.x / 16, col = threadIdx.x % 16;
  const float* const rows = p.q + bh * p.rows * p.channels;
  const float* const cols = p.k + bh / p.group * p.cols * p.channels;
  float sum[kOwn][kOwn] = {};
  for (int t0 = 0; t0 < p.channels; t0 += kDepth) {
    for (int i = threadIdx.x; i < kSide * kDepth; i += 256) {
      const int n = i / kDepth, t = t0 + i % kDepth;
      const bool inside = t < p.channels;
      q[i % kDepth][n] = inside && r0 + n < p.rows ? rows[int64_t(r0 + n) * p.channels + t] : 0;
      k[i % kDepth][n] = inside && c0 + n < p.cols ? cols[int64_t(c0 + n) * p.channels + t] : 0;
    }
    __syncthreads();
    for (int t = 0; t < min(kDepth, p.channels - t0); ++t)
#pragma unroll
      for (int i = 0; i < kOwn; ++i)
#pragma unroll
        for (int j = 0; j < kOwn; ++j)
          sum[i][j] = fmaf(q[t][row + 16 * i], k[t][col + 16 * j], sum[i][j]);
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < kOwn; ++i)
#pragma unroll
    for (int j = 0; j < kOwn; ++j) {
      const int64_t r = r0 + row + 16 * i, c = c0 + col + 16 * j;
      if (r >= p.rows || c >= p.cols) continue;
      const int64_t last = p.offset + min((r + 1) * p.bq, p.nq) - 1;
      p.out[(bh * p.rows + r) * p.cols + c] =
          !p.causal || c * p.bk <= last ? p.scale * sum[i][j] : -kInf;
    }
}

}  // namespace

void launch_means(const Means& p, void* stream) {
  const unsigned rows = unsigned(int64_t(p.from.batches) * p.from.heads * p.blocks);
  const int threads = (p.from.channels < 256 ? p.from.channels + 31 : 256) / 32 * 32;
  if (p.from.bf16) {
    means_kernel<__nv_bfloat16><<<rows, threads, 0, cudaStream_t(stream)>>>(p);
  } else {
    means_kernel<__half><<<rows, threads, 0, cudaStream_t(stream)>>>(p);
  }
}

void launch_pooled_dots(const PooledDots& p, void* stream) {
  const dim3 blocks(unsigned((p.cols + kSide - 1) / kSide), unsigned((p.rows + kSide - 1) / kSide),
                    unsigned(p.pairs));
  dots_kernel<<<blocks, 256, 0, cudaStream_t(stream)>>>(p);
}

}  // namespace regard::cuda::stages
