// Rows of the caller's tensors, in pages or not. Layer: cuda.
#pragma once
#include "cuda/sm80/params.h"
#include "cuda/sm80/ptx.cuh"

namespace regard::cuda::sm80 {

__device__ inline const char* row_at(const PagedRows& x, int64_t b, int h, int i) {
  const char* const head = x.rows.data + h * x.rows.head;
  if (!x.pages) return head + b * x.rows.batch + i * x.rows.token;
  return head + x.pages[b * x.pages_row + (i >> x.shift)] * x.page + (i & x.mask) * x.rows.token;
}

// Channels c and c + 1; c is even.
template <class T>
__device__ float2 pair_at(const char* row, int c);
template <>
__device__ inline float2 pair_at<__half>(const char* row, int c) {
  return __half22float2(*reinterpret_cast<const __half2*>(row + c * 2));
}
template <>
__device__ inline float2 pair_at<__nv_bfloat16>(const char* row, int c) {
  return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(row + c * 2));
}

}  // namespace regard::cuda::sm80
