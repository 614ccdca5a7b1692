// A thread's scores of one step become weights, the A operand of PV: in registers, or in shared
// memory. Element i of a thread belongs to its row i / 2 % 2. Layer: cuda (device code).
#pragma once
#include "cuda/ptx.h"
#include "cuda/sm90/row_math.h"

namespace regard::cuda::sm90 {

// Of this thread's scores alone. Four chains side by side, because one waits for its own latency.
template <int kCount>
__device__ __forceinline__ void thread_max(const float (&s)[kCount], float (&top)[2]) {
  float a[4] = {s[0], s[1], s[2], s[3]};
#pragma unroll
  for (int i = 4; i < kCount; ++i) a[i % 4] = fmaxf(a[i % 4], s[i]);
  top[0] = fmaxf(a[0], a[1]);
  top[1] = fmaxf(a[2], a[3]);
}

// s = scale s - max
template <int kCount>
__device__ __forceinline__ void to_logits(float (&s)[kCount], float scale, const float (&max)[2]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) s[i] = fmaf(s[i], scale, -max[i / 2 % 2]);
}

// s = exp2(scale s - max), and its sums by row.
template <int kCount>
__device__ __forceinline__ void exponentials(float (&s)[kCount], float scale, const float (&max)[2],
                                             float (&sum)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float a = 0, b = 0;
#pragma unroll
    for (int i = 2 * half; i < kCount; i += 4) {
      s[i] = ptx::exp2(fmaf(s[i], scale, -max[half]));
      s[i + 1] = ptx::exp2(fmaf(s[i + 1], scale, -max[half]));
      a += s[i];
      b += s[i + 1];
    }
    sum[half] += a + b;
  }
}

// The layout of the scores is that of the A operand: 16 keys are two groups of eight.
template <class T, int kCount>
__device__ __forceinline__ void round_weights(const float (&s)[kCount], uint32_t (&p)[kCount / 2]) {
#pragma unroll
  for (int i = 0; i < kCount / 2; ++i) p[i] = pack(s[2 * i], s[2 * i + 1], T());
}

// exp2(s) to shared memory, for products after a barrier, and its sums by row: tiles of 64 rows x
// 64 keys in the 128-byte swizzle, from `to` on. `row` is the one of 64 whose 16 bytes this lane
// addresses.
template <class T, int kCount>
__device__ __forceinline__ void share_weights(float (&s)[kCount], uint32_t to, int row, int lane,
                                              float (&sum)[2]) {
  float a[4] = {0, 0, 0, 0};
#pragma unroll
  for (int i = 0; i < kCount / 8; ++i) {  // 16 keys
    uint32_t p[4];
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      s[8 * i + j] = ptx::exp2(s[8 * i + j]);
      a[j % 4] += s[8 * i + j];
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) p[j] = pack(s[8 * i + 2 * j], s[8 * i + 2 * j + 1], T());
    const int word = (i % 4 * 2 + lane / 16) ^ (row & 7);
    ptx::store_matrices(to + i / 4 * (64 * 128) + row * 128 + word * 16, p);
  }
  ptx::fence_async();
  sum[0] += a[0] + a[1];
  sum[1] += a[2] + a[3];
}

}  // namespace regard::cuda::sm90
