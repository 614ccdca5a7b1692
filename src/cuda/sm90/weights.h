// A thread's scores of one step become weights, the A operand of PV. Element i of a thread belongs
// to its row i / 2 % 2. Layer: cuda (device code).
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

}  // namespace regard::cuda::sm90
