// Rows as levels: see stages/levels.h. Four lanes a row, eight channels of every 32 each: lane and
// place are the sum (of channels 32 apart) that matrix::sum_of adds them to.
#include "cuda/stages/common.cuh"
#include "stages/levels.h"

namespace regard::cuda::stages {
namespace {

constexpr int kWarps = 8, kTogether = 8;  // rows of a warp: one number of eight groups

// Adding one of these leaves whole numbers, or even ones, to nearest with ties to even: two
// additions where the conversion unit would take four times as long. |x| is below 2^22, or x may be
// anything.
constexpr float kTwos = 2 * kOnes;
__device__ float rounded(float x, float to) { return __fadd_rn(__fadd_rn(x, to), -to); }

template <class T, int kSteps, bool kWide>
__global__ void __launch_bounds__(kWarps * 32) levels_kernel(const Rows from, const Levels to) {
  const int lane = threadIdx.x % 32, channel = lane % 4 * 8;
  const int warp = int(blockIdx.x) * kWarps + int(threadIdx.x) / 32, groups = to.tokens / to.stride;
  const int number = warp % to.stride, group = warp / to.stride * kTogether + lane / 4;
  const int token = group * to.stride + number;
  const int64_t bh = blockIdx.y;
  const T* const src =
      token < from.tokens ? row_of<T>(from, bh / from.heads, int(bh % from.heads), token) : nullptr;
  uint4 raw[kSteps];
#pragma unroll
  for (int i = 0; i < kSteps; ++i) raw[i] = load8<T, kWide>(src, i * 32 + channel, from.channels);
  float x[kSteps][8], square[8] = {};
#pragma unroll
  for (int i = 0; i < kSteps; ++i) to_floats<T>(raw[i], x[i]);
#pragma unroll
  for (int i = 0; i < kSteps; ++i)
#pragma unroll
    for (int j = 0; j < 8; ++j) square[j] = fmaf(x[i][j], x[i][j], square[j]);
#pragma unroll
  for (int width = 2; width > 0; width /= 2)
#pragma unroll
    for (int j = 0; j < 8; ++j) square[j] += __shfl_xor_sync(~0u, square[j], width);
#pragma unroll
  for (int width = 4; width > 0; width /= 2)
#pragma unroll
    for (int j = 0; j < width; ++j) square[j] += square[j + width];
  if (group >= groups) return;

  const float sum = square[0], length = __fsqrt_rn(sum);
  const bool fits = sum >= levels::kLeastSquare && sum <= levels::kMostSquare;
  const float inverse = fits ? __fdiv_rn(levels::kLength, length) : 0;
  const int64_t row = bh * to.stride + number;
  if (channel == 0)
    to.scale[row * to.groups + group] = fits ? __fdiv_rn(length, levels::kLength)
                                        : sum < levels::kLeastSquare ? 0.0f
                                                                     : __uint_as_float(0x7fc00000u);
  uint16_t* const out = to.x + (row * groups + group) * to.padded + channel;
#pragma unroll
  for (int i = 0; i < kSteps; ++i) {
    if (i * 32 >= to.padded) break;
    uint4 level;
    __half2* const two = reinterpret_cast<__half2*>(&level);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const float y = rounded(x[i][j] * inverse, kOnes);
      x[i][j] = inverse > 0 ? fabsf(y) > levels::kExact ? rounded(y, kTwos) : y : 0;
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) two[j] = __floats2half2_rn(x[i][2 * j], x[i][2 * j + 1]);
    *reinterpret_cast<uint4*>(out + i * 32) = level;
  }
}

template <class T, bool kWide>
void launch(const Rows& from, const Levels& to, void* stream) {
  const int eights = (to.tokens / to.stride + kTogether - 1) / kTogether;
  const dim3 blocks(unsigned((int64_t(eights) * to.stride + kWarps - 1) / kWarps),
                    unsigned(from.batches * from.heads));
  const auto kernel = to.padded <= 64    ? levels_kernel<T, 2, kWide>
                      : to.padded <= 128 ? levels_kernel<T, 4, kWide>
                                         : levels_kernel<T, 8, kWide>;
  kernel<<<blocks, kWarps * 32, 0, cudaStream_t(stream)>>>(from, to);
}
template <class T>
void launch(const Rows& from, const Levels& to, void* stream) {
  wide(from) ? launch<T, true>(from, to, stream) : launch<T, false>(from, to, stream);
}

}  // namespace

void launch_levels(const Rows& from, const Levels& to, void* stream) {
  from.bf16 ? launch<__nv_bfloat16>(from, to, stream) : launch<__half>(from, to, stream);
}

}  // namespace regard::cuda::stages
