// Rows as levels: see stages/levels.h. One warp a row; lane l has channels l, l + 32, ...
#include "cuda/stages/common.cuh"
#include "stages/levels.h"

namespace regard::cuda::stages {
namespace {

constexpr int kWarps = 8, kMostSteps = 8;  // 256 channels

template <class T>
__global__ void levels_kernel(const Rows from, const Levels to) {
  const int64_t row = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (row >= int64_t(from.batches) * from.heads * from.tokens) return;
  const int64_t bh = row / from.tokens;
  const T* const src = row_of<T>(from, bh / from.heads, int(bh % from.heads), row % from.tokens);
  float x[kMostSteps], square = 0;
#pragma unroll
  for (int i = 0; i < kMostSteps; ++i) {
    const int c = i * 32 + lane;
    x[i] = c < from.channels ? to_float(src[c]) : 0.0f;
    if (c < from.channels) square = fmaf(x[i], x[i], square);
  }
  square = fold(square);
  const bool fits = square >= levels::kLeastSquare && square <= levels::kMostSquare;
  const float length = __fsqrt_rn(square), inverse = fits ? __fdiv_rn(levels::kLength, length) : 0;
#pragma unroll
  for (int i = 0; i < kMostSteps; ++i) {
    const int c = i * 32 + lane;
    if (c >= to.padded) break;
    float y = rintf(x[i] * inverse);
    const float even = rintf(y * 0.5f);
    if (fabsf(y) > levels::kExact) y = even + even;
    to.x[row * to.padded + c] = fits ? __half_as_ushort(__float2half_rn(y)) : uint16_t(0);
  }
  if (lane == 0)
    to.scale[row] = fits                            ? __fdiv_rn(length, levels::kLength)
                    : square < levels::kLeastSquare ? 0.0f
                                                    : __uint_as_float(0x7fc00000u);
}

}  // namespace

void launch_levels(const Rows& from, const Levels& to, void* stream) {
  const int64_t rows = int64_t(from.batches) * from.heads * from.tokens;
  const unsigned blocks = unsigned((rows + kWarps - 1) / kWarps);
  if (from.bf16) {
    levels_kernel<__nv_bfloat16><<<blocks, kWarps * 32, 0, cudaStream_t(stream)>>>(from, to);
  } else {
    levels_kernel<__half><<<blocks, kWarps * 32, 0, cudaStream_t(stream)>>>(from, to);
  }
}

}  // namespace regard::cuda::stages
