// What src/cuda/sm80/ptx.cuh has, for kernels that run on the host (../../kernel.h).
#pragma once
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "kernel.h"

#include "cuda/sm80/convert.cuh"

namespace regard::cuda::sm80 {

inline char* dynamic_shared() { return host::shared(); }
inline uint32_t shared_address(const void* p) {
  return uint32_t(static_cast<const char*>(p) - host::shared());
}

inline void copy16(uint32_t to, const void* from, bool valid) {
  host::copy(to, valid ? from : nullptr, 16);
}
inline void copy16(uint32_t to, const void* from) { host::copy(to, from, 16); }
inline void copy4(uint32_t to, const void* from) { host::copy(to, from, 4); }
inline void copy_commit() { host::commit(); }
template <int kPending>
void copy_wait() {
  host::wait(kPending);
}

inline void load_matrix(uint32_t (&r)[4], uint32_t from) { host::load_matrix(r, from, false); }
inline void load_matrix_transposed(uint32_t (&r)[4], uint32_t from) {
  host::load_matrix(r, from, true);
}
template <class T>
void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  host::multiply(d, a, b0, b1, std::is_same_v<T, __nv_bfloat16>);
}
inline void multiply_tf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  host::multiply_tf32(d, a, b0, b1);
}

inline float exp2_fast(float x) {
  const float y = exp2f(x);
  return y < 0x1p-126f ? 0 : y;  // NaN stays
}

inline void release_next_kernel() {}
inline void wait_for_previous_kernel() {}
inline uint32_t add_one(uint32_t* at) { return (*at)++; }

}  // namespace regard::cuda::sm80
