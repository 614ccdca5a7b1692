// The probe by tiles; the arithmetic is that of stages/estimate/probe_tiles.cc and divergence.cc.
#include "cuda/stages/common.cuh"

namespace regard::cuda::stages {
namespace {

constexpr int kThreads = 1024;

// One thread a tile: its sum in order.
__global__ void sums_kernel(const __grid_constant__ ProbeTiles p) {
  const int64_t columns = int64_t(p.heads) * p.columns;
  const int64_t n = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (n >= columns + int64_t(p.heads) * p.diagonals) return;
  const bool slash = n >= columns;
  const int64_t at = slash ? n - columns : n, tiles = slash ? p.diagonals : p.columns;
  const int64_t begin = at % tiles * p.block, end = slash ? p.length : p.keys;
  const float* const x = slash ? p.slash + at / tiles * p.offsets : p.vertical + at / tiles * p.nk;
  double sum = 0;
#pragma unroll 8
  for (int64_t j = begin; j < min(begin + p.block, end); ++j) sum += double(x[j]);
  p.sums[n] = sum;
}

// Sum and number of what a block's threads found; all threads get them.
__device__ void add_up(uint64_t& sum, int& count) {
  __shared__ uint64_t sums[32];
  __shared__ int counts[32];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int width = 16; width > 0; width /= 2) {
    sum += __shfl_xor_sync(~0u, sum, width);
    count += __shfl_xor_sync(~0u, count, width);
  }
  __syncthreads();  // the sums before have been read
  if (lane == 0) sums[warp] = sum, counts[warp] = count;
  __syncthreads();
  sum = sums[lane], count = counts[lane];
#pragma unroll
  for (int width = 16; width > 0; width /= 2) {
    sum += __shfl_xor_sync(~0u, sum, width);
    count += __shfl_xor_sync(~0u, count, width);
  }
}

// One block an array: the largest value that, with all above it, reaches the goal, bit by bit.
__global__ void __launch_bounds__(kThreads) crossing_kernel(const __grid_constant__ ProbeTiles p) {
  const int64_t head = blockIdx.x / 2;
  const bool slash = blockIdx.x % 2;
  const float* const x = slash ? p.slash + head * p.offsets : p.vertical + head * p.nk;
  const int64_t n = slash ? p.length : p.keys;
  // Sum and number of the shares whose bits are at least `least`.
  const auto from = [&](uint32_t least, uint64_t& sum, int& count) {
    sum = 0, count = 0;
#pragma unroll 8
    for (int64_t i = threadIdx.x; i < n; i += kThreads) {
      const float share = x[i] > 0 ? x[i] : 0.0f;
      if (__float_as_uint(share) >= least) sum += units::of(share), ++count;
    }
    add_up(sum, count);
  };
  units::Crossing out;
  uint64_t sum;
  int count;
  from(0, out.total, count);
  const double goal = p.gamma * double(out.total);
  if (goal > 0 && !(double(out.total) < goal)) {
    uint32_t value = 0;
    for (uint32_t bit = 1u << 30; bit > 0; bit >>= 1) {
      from(value | bit, sum, count);
      if (!(double(sum) < goal)) value |= bit;
    }
    from(value + 1, sum, count);
    out.above = sum, out.count = count, out.value = __uint_as_float(value);
  }
  if (threadIdx.x == 0) p.crossings[blockIdx.x] = out;
}

// One thread a tile, channel by channel.
__global__ void products_kernel(const __grid_constant__ MeanProducts p) {
  const int c = int(blockIdx.x * blockDim.x + threadIdx.x), bh = blockIdx.y;
  if (c >= p.tiles) return;
  const double* const q = p.q + int64_t(bh) * p.channels;
  const double* const k = p.k + (int64_t(bh / p.group) * p.tiles + c) * p.channels;
  double sum = 0;
#pragma unroll 8
  for (int t = 0; t < p.channels; ++t) sum += q[t] * k[t] * double(p.scale);
  p.out[int64_t(bh) * p.tiles + c] = sum;
}

// One warp a row.
__global__ void softmax_kernel(const __grid_constant__ Softmax p) {
  const int64_t row = int64_t(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (row >= p.rows) return;
  const float* const from = p.from + row * p.cols;
  float* const to = p.to + row * p.cols;
  float top = -kInf;
  for (int64_t c = lane; c < p.cols; c += 32) top = from[c] > top ? from[c] : top;
  top = max_of_lanes(top);
  const bool empty = top == -kInf;
  float sum = 0;
  for (int64_t c = lane; c < p.cols; c += 32) {
    const float e = empty ? from[c] : exponential::of(from[c] - top);
    to[c] = e;
    sum += e;
  }
  if (empty) return;
  sum = fold(sum);
  for (int64_t c = lane; c < p.cols; c += 32) to[c] = __fdiv_rn(to[c], sum);
}

}  // namespace

void launch_probe_tiles(const ProbeTiles& p, void* stream) {
  const int64_t tiles = int64_t(p.heads) * (p.columns + p.diagonals);
  sums_kernel<<<unsigned((tiles + 63) / 64), 64, 0, cudaStream_t(stream)>>>(p);
  if (p.gamma > 0) crossing_kernel<<<unsigned(2 * p.heads), kThreads, 0, cudaStream_t(stream)>>>(p);
}

void launch_mean_products(const MeanProducts& p, void* stream) {
  const dim3 blocks(unsigned((p.tiles + 63) / 64), unsigned(p.pairs));
  products_kernel<<<blocks, 64, 0, cudaStream_t(stream)>>>(p);
}

void launch_softmax(const Softmax& p, void* stream) {
  softmax_kernel<<<unsigned((p.rows + 7) / 8), 256, 0, cudaStream_t(stream)>>>(p);
}

}  // namespace regard::cuda::stages
