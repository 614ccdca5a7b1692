// Products of f32 matrices on the tensor cores: every factor as one or two tf32 numbers, which
// keeps 22 of its 24 bits. Layer: cuda.
#pragma once
#include "cuda/sm80/ptx.cuh"

namespace regard::cuda::sm80 {

// How many tf32 numbers a factor becomes: 1 where it has 11 bits at most.
enum class Parts { one, two };

constexpr int kDeep = 32, kWide = 128;  // what one multiply_tile adds up; columns

// a[k][m] and b[k][n]. Rows of 8 banks more than a multiple of 32: fragments meet no bank twice.
template <int kM>
struct TileMemory {
  static constexpr int kThreads = 2 * kM;
  alignas(16) float a[kDeep][kM + 8];
  alignas(16) float b[kDeep][kWide + 8];
};

// kDeep rows of kWide numbers, 0 past the last row and column. All loads first, in no branch.
template <int kOf>
__device__ __forceinline__ void load_rows(float (&to)[kDeep][kWide + 8], const float* from,
                                          int64_t stride, int rows, int columns) {
  constexpr int kParts = kWide / 4, kAtOnce = 4;
#pragma unroll
  for (int first = 0; first < kDeep * kParts; first += kAtOnce * kOf) {
    float4 x[kAtOnce];
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      const int e = first + u * kOf + int(threadIdx.x), k = e / kParts, d = e % kParts * 4;
      x[u] =
          *reinterpret_cast<const float4*>(from + min(k, rows - 1) * stride + min(d, columns - 4));
    }
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      const int e = first + u * kOf + int(threadIdx.x), k = e / kParts, d = e % kParts * 4;
      const bool there = k < rows && d < columns;
      *reinterpret_cast<float4*>(&to[k][d]) = there ? x[u] : make_float4(0, 0, 0, 0);
    }
  }
}

// What a thread of warp w holds: rows w / 2 * 32 + [0, 32), columns w % 2 * 64 + [0, 64).
struct TileSum {
  float x[2][8][4] = {};

  // f(row, column, two numbers of columns column and column + 1).
  template <class F>
  __device__ void each(const F& f) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int n = 0; n < 8; ++n)
#pragma unroll
        for (int half = 0; half < 2; ++half)
          f(warp / 2 * 32 + m * 16 + half * 8 + lane / 4, warp % 2 * 64 + n * 8 + lane % 4 * 2,
            *reinterpret_cast<float2*>(&x[m][n][half * 2]));
  }
};

__device__ inline uint32_t upper(float x) { return __float_as_uint(x) & 0xffffe000u; }
__device__ inline uint32_t lower(float x) { return upper(x - __uint_as_float(upper(x))); }

// sum += a^T b, without the products of two lower parts.
template <int kM, Parts kA, Parts kB>
__device__ __forceinline__ void multiply_tile(const TileMemory<kM>& t, TileSum& sum) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int row = warp / 2 * 32 + lane / 4, column = warp % 2 * 64 + lane / 4, k0 = lane % 4;
#pragma unroll
  for (int k = k0; k < kDeep + k0; k += 8) {
    uint32_t a[2][4], rest[2][4];
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float x = t.a[k + e / 2 * 4][row + m * 16 + e % 2 * 8];
        a[m][e] = kA == Parts::one ? __float_as_uint(x) : upper(x);
        if (kA == Parts::two) rest[m][e] = lower(x);
      }
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const float x = t.b[k][column + n * 8], y = t.b[k + 4][column + n * 8];
      const uint32_t b0 = kB == Parts::one ? __float_as_uint(x) : upper(x);
      const uint32_t b1 = kB == Parts::one ? __float_as_uint(y) : upper(y);
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        if (kB == Parts::two) multiply_tf32(sum.x[m][n], a[m], lower(x), lower(y));
        if (kA == Parts::two) multiply_tf32(sum.x[m][n], rest[m], b0, b1);
        multiply_tf32(sum.x[m][n], a[m], b0, b1);
      }
    }
  }
}

}  // namespace regard::cuda::sm80
