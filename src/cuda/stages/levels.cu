// Rows as levels: see stages/levels.h. One warp a row; lane l has channels l, l + 32, ...
#include "cuda/stages/common.cuh"
#include "stages/levels.h"

namespace regard::cuda::stages {
namespace {

constexpr int kWarps = 8, kTogether = 4;  // rows of a warp in flight

// Adding one of these leaves whole numbers, or even ones, to nearest with ties to even: two
// additions where the conversion unit would take four times as long. |x| is below 2^22, or x may be
// anything.
constexpr float kOnes = 12582912, kTwos = 25165824;  // 1.5 * 2^23, 1.5 * 2^24
__device__ float rounded(float x, float to) { return __fadd_rn(__fadd_rn(x, to), -to); }

template <class T, int kSteps>
__global__ void __launch_bounds__(kWarps * 32) levels_kernel(const Rows from, const Levels to) {
  const int lane = threadIdx.x % 32;
  const int first = (int(blockIdx.x) * kWarps + int(threadIdx.x) / 32) * kTogether;
  const int64_t bh = blockIdx.y, row = bh * to.tokens + first;
  const T* const src = row_of<T>(from, bh / from.heads, int(bh % from.heads), first);
  const int64_t step = from.token / int64_t(sizeof(T));
  float x[kTogether][kSteps], square[kTogether];
#pragma unroll
  for (int n = 0; n < kTogether; ++n) {
    const bool inside = first + n < from.tokens;
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const int c = i * 32 + lane;
      x[n][i] = inside && c < from.channels ? to_float(src[n * step + c]) : 0.0f;
    }
  }
#pragma unroll
  for (int n = 0; n < kTogether; ++n) {
    square[n] = 0;
#pragma unroll
    for (int i = 0; i < kSteps; ++i)
      if (i * 32 + lane < from.channels) square[n] = fmaf(x[n][i], x[n][i], square[n]);
    square[n] = fold(square[n]);
  }
  // A lane makes the root and the quotients of one row, for all.
  float mine = square[0];
#pragma unroll
  for (int n = 1; n < kTogether; ++n) mine = lane % kTogether == n ? square[n] : mine;
  const bool fits = mine >= levels::kLeastSquare && mine <= levels::kMostSquare;
  const float length = __fsqrt_rn(mine);
  const float own = fits ? __fdiv_rn(levels::kLength, length) : 0;
  const int token = first + lane;
  if (lane < kTogether && token < to.tokens)
    to.scale[(bh * to.stride + token % to.stride) * to.groups + token / to.stride] =
        fits                          ? __fdiv_rn(length, levels::kLength)
        : mine < levels::kLeastSquare ? 0.0f
                                      : __uint_as_float(0x7fc00000u);
#pragma unroll
  for (int n = 0; n < kTogether; ++n) {
    if (first + n >= to.tokens) return;
    const float inverse = __shfl_sync(~0u, own, n);
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const int c = i * 32 + lane;
      if (c >= to.padded) break;
      const float y = rounded(x[n][i] * inverse, kOnes);
      const float level = fabsf(y) > levels::kExact ? rounded(y, kTwos) : y;
      to.x[(row + n) * to.padded + c] =
          inverse > 0 ? __half_as_ushort(__float2half_rn(level)) : uint16_t(0);
    }
  }
}

template <class T>
void launch(const Rows& from, const Levels& to, void* stream) {
  const dim3 blocks(unsigned((to.tokens + kWarps * kTogether - 1) / (kWarps * kTogether)),
                    unsigned(from.batches * from.heads));
  if (to.padded <= 64) {
    levels_kernel<T, 2><<<blocks, kWarps * 32, 0, cudaStream_t(stream)>>>(from, to);
  } else if (to.padded <= 128) {
    levels_kernel<T, 4><<<blocks, kWarps * 32, 0, cudaStream_t(stream)>>>(from, to);
  } else {
    levels_kernel<T, 8><<<blocks, kWarps * 32, 0, cudaStream_t(stream)>>>(from, to);
  }
}

}  // namespace

void launch_levels(const Rows& from, const Levels& to, void* stream) {
  from.bf16 ? launch<__nv_bfloat16>(from, to, stream) : launch<__half>(from, to, stream);
}

}  // namespace regard::cuda::stages
