// Antidiagonal block scores; the arithmetic is that of stages/estimate/antidiagonal.cc.
//
// A block multiplies 128 query groups by 128 key groups (fewer where tiles do not divide 128);
// antidiagonal_sm90.cu does the same on Hopper's tensor cores. The products are integers
// (stages/levels.h), so tensor cores may add a token's channels in any order; after each token they
// are scaled and added to the group's sum, and at the end only the maximum and the sum of
// exponentials of each tile leave: 8 bytes for per_tile logits.
#include "cuda/sm80/ptx.cuh"
#include "cuda/stages/antidiagonal.cuh"

namespace regard::cuda::stages {
namespace {

using sm80::copy16;

constexpr int kSide = 128, kThreads = 256, kStages = 3;
constexpr int kWarpRows = 64, kWarpCols = 32;  // 2 x 4 warps
constexpr int kPitch = kSide + 1;              // of logits in shared memory

struct Stage {
  __half q[kSide][kChunk], k[kSide][kChunk];
  float q_scale[kSide], k_scale[kSide];
};
constexpr int kBytes = int(sizeof(Stage)) * kStages;
static_assert(kBytes >= kSide * kPitch * 4);

__device__ void copy4(uint32_t to, const float* from, bool valid) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;\n" ::"r"(to), "l"(from),
               "r"(valid ? 4 : 0)
               : "memory");
}

// 128-byte rows; 16-byte words are exchanged so that eight rows of a matrix lie in eight banks.
__device__ uint32_t at(const __half (*tile)[kChunk], int row, int word) {
  return sm80::shared_address(&tile[row][(word ^ (row & 7)) * 8]);
}

class Product {
 public:
  __device__ Product(const Antidiagonal& p, Stage* stages, int64_t bh, int g0, int j0)
      : p_(p), stages_(stages), chunks_(p.q.padded / kChunk), steps_(p.stride * chunks_) {
    const int64_t b = bh / p.heads, kv = bh % p.heads / p.group, kv_heads = p.heads / p.group;
    bh_ = bh, kv_ = b * kv_heads + kv, g0_ = g0, j0_ = j0;
    const int warp = threadIdx.x / 32;
    row_ = warp / 4 * kWarpRows, col_ = warp % 4 * kWarpCols;
  }

  __device__ void run() {
#pragma unroll
    for (int s = 0; s < kStages - 1; ++s) fetch(s);
    for (int step = 0; step < steps_; ++step) {
      sm80::copy_wait<kStages - 2>();
      __syncthreads();
      fetch(step + kStages - 1);
      const Stage& s = stages_[step % kStages];
      multiply(s);
      if ((step + 1) % chunks_ == 0) add_token(s);
    }
    sm80::copy_wait<0>();
    __syncthreads();
  }

  // logits[row * kPitch + column], scaled.
  __device__ void store(float* logits) const {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int m = 0; m < 4; ++m)
#pragma unroll
      for (int n = 0; n < 4; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int r = row_ + m * 16 + lane / 4 + i / 2 * 8,
                    c = col_ + n * 8 + lane % 4 * 2 + i % 2;
          logits[r * kPitch + c] = sum_[m][n][i] * p_.scale;
        }
  }

 private:
  __device__ void fetch(int step) {
    if (step < steps_) {
      Stage& s = stages_[step % kStages];
      const int t = step / chunks_, channel = step % chunks_ * kChunk;
      const int64_t q_groups = p_.q.tokens / p_.stride, k_groups = p_.k.tokens / p_.stride;
      // 128 rows of 8 words each of q and k: 4 words a thread and matrix.
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = i * 32 + threadIdx.x / 8, word = threadIdx.x % 8;
        const bool q = g0_ + row < p_.q_groups, k = j0_ + row < p_.k_groups;
        const int64_t q_token = (p_.stride - 1 - t) * q_groups + (q ? g0_ + row : 0);
        const int64_t k_token = t * k_groups + (k ? j0_ + row : 0);
        copy16(at(s.q, row, word),
               p_.q.x + (bh_ * p_.q.tokens + q_token) * p_.q.padded + channel + word * 8, q);
        copy16(at(s.k, row, word),
               p_.k.x + (kv_ * p_.k.tokens + k_token) * p_.k.padded + channel + word * 8, k);
      }
      const int row = threadIdx.x % kSide;
      if (threadIdx.x < kSide) {
        const bool q = g0_ + row < p_.q_groups;
        copy4(
            sm80::shared_address(&s.q_scale[row]),
            p_.q.scale + (bh_ * p_.stride + p_.stride - 1 - t) * p_.q.groups + (q ? g0_ + row : 0),
            q);
      } else {
        const bool k = j0_ + row < p_.k_groups;
        copy4(sm80::shared_address(&s.k_scale[row]),
              p_.k.scale + (kv_ * p_.stride + t) * p_.k.groups + (k ? j0_ + row : 0), k);
      }
    }
    sm80::copy_commit();
  }

  __device__ void multiply(const Stage& s) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int depth = 0; depth < kChunk / 16; ++depth) {
      uint32_t q[4][4], k[2][4];
#pragma unroll
      for (int m = 0; m < 4; ++m)
        sm80::load_matrix(q[m], at(s.q, row_ + m * 16 + lane % 16, depth * 2 + lane / 16));
#pragma unroll
      for (int n = 0; n < 2; ++n)
        sm80::load_matrix(
            k[n], at(s.k, col_ + n * 16 + lane % 8 + lane / 16 * 8, depth * 2 + lane / 8 % 2));
#pragma unroll
      for (int m = 0; m < 4; ++m)
#pragma unroll
        for (int n = 0; n < 4; ++n)
          sm80::multiply<__half>(token_[m][n], q[m], k[n / 2][n % 2 * 2], k[n / 2][n % 2 * 2 + 1]);
    }
  }

  __device__ void add_token(const Stage& s) {
    const int lane = threadIdx.x % 32;
    float q[8], k[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      q[i] = s.q_scale[row_ + i * 8 + lane / 4];
      k[i] = s.k_scale[col_ + i / 2 * 8 + lane % 4 * 2 + i % 2];
    }
#pragma unroll
    for (int m = 0; m < 4; ++m)
#pragma unroll
      for (int n = 0; n < 4; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float scale = q[m * 2 + i / 2] * k[n * 2 + i % 2];
          sum_[m][n][i] = fmaf(token_[m][n][i], scale, sum_[m][n][i]);
          token_[m][n][i] = 0;
        }
  }

  const Antidiagonal& p_;
  Stage* const stages_;
  const int chunks_, steps_;
  int64_t bh_, kv_;
  int g0_, j0_, row_, col_;
  float token_[4][4][4] = {}, sum_[4][4][4] = {};
};

__global__ void __launch_bounds__(kThreads, 1)
    product_kernel(const __grid_constant__ Antidiagonal p) {
  extern __shared__ __align__(128) char memory[];
  const int tiles = kSide / p.per_tile, width = tiles * p.per_tile;
  const int g0 = p.first + blockIdx.y * kSide, j0 = blockIdx.x * width;
  const int end = min(g0 + kSide, p.first + p.groups);
  if (visible(p, end - 1) <= j0) return;
  Product product(p, reinterpret_cast<Stage*>(memory), blockIdx.z, g0, j0);
  product.run();
  float* const logits = reinterpret_cast<float*>(memory);
  product.store(logits);
  __syncthreads();
  finish_tiles(p, logits, kSide, kPitch, blockIdx.z, g0, end, j0, tiles, threadIdx.x, kThreads);
}

// One block a row of tiles: the softmax of each group over its tiles, then the groups in order.
__global__ void __launch_bounds__(kThreads) tiles_kernel(const __grid_constant__ Antidiagonal p) {
  __shared__ float top[kMostPerTile], inverse[kMostPerTile];
  __shared__ int seen[kMostPerTile];
  const int lane = threadIdx.x % 32, begin = blockIdx.x * p.per_tile;
  const int count = min(p.per_tile, p.groups - begin);
  const int64_t bh = blockIdx.y;
  const float2* const rows = p.tiles + (bh * p.groups + begin) * p.cols;
  for (int g = threadIdx.x / 32; g < count; g += kThreads / 32) {
    const float2* const x = rows + int64_t(g) * p.cols;
    const int groups = visible(p, p.first + begin + g);
    const int tiles = (groups + p.per_tile - 1) / p.per_tile;
    float m = -kInf, sum = 0;
    for (int c = lane; c < tiles; c += 32) m = x[c].x > m ? x[c].x : m;
    m = max_of_lanes(m);
    for (int c = lane; c < tiles; c += 32) sum += x[c].y * falling_exponential(x[c].x - m);
    sum = fold(sum);
    if (lane == 0) top[g] = m, inverse[g] = __fdiv_rn(1.0f, sum), seen[g] = tiles;
  }
  __syncthreads();
  const int row = (p.first + begin) / p.per_tile;
  for (int c = threadIdx.x; c < p.cols; c += kThreads) {
    float sum = 0;
    for (int g = 0; g < count; ++g) {
      if (c >= seen[g]) continue;
      const float2 x = rows[int64_t(g) * p.cols + c];
      sum = fmaf(x.y * falling_exponential(x.x - top[g]), inverse[g], sum);
    }
    p.out[(bh * p.rows + row) * p.cols + c] = sum;
  }
}

}  // namespace

void launch_antidiagonal(const Antidiagonal& p, int hopper_sms, void* stream) {
  if (hopper_sms > 0) {
    launch_antidiagonal_products_sm90(p, hopper_sms, stream);
  } else {
    const int width = kSide / p.per_tile * p.per_tile;
    cudaFuncSetAttribute(product_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
    const dim3 products(unsigned((p.k_groups + width - 1) / width),
                        unsigned((p.groups + kSide - 1) / kSide), unsigned(p.pairs));
    product_kernel<<<products, kThreads, kBytes, cudaStream_t(stream)>>>(p);
  }
  const dim3 tiles(unsigned((p.groups + p.per_tile - 1) / p.per_tile), unsigned(p.pairs));
  tiles_kernel<<<tiles, kThreads, 0, cudaStream_t(stream)>>>(p);
}

}  // namespace regard::cuda::stages
