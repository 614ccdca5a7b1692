// CUDA's execution model on the host, for tests of kernels where no GPU is: the threads of a block
// are fibers, blocks run one after the other. Forced into every kernel's file by the compiler.
//
// What is kept: barriers and shuffles meet all threads that are alive (a deadlock ends the
// program), asynchronous copies arrive when they are waited for and not before, shared memory
// starts with what the block before left. What is not: races between threads that no order of
// fibers shows, memory spaces, the rounding of the tensor cores' sums and of approximate
// instructions.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>
#include <vector_functions.h>
#include <vector_types.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#undef __shared__
#undef __global__
#undef __device__
#undef __host__
#undef __forceinline__
#undef __launch_bounds__
#undef __grid_constant__
#define __shared__ static
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__

namespace host {

struct Index {
  unsigned x = 0, y = 0, z = 0;
};

// Every block of a launch, one after the other.
void run(dim3 grid, dim3 block, const std::function<void()>& kernel);

enum class Meet { any, all, sync };
int meet(int value, Meet how);                // all threads of the block
uint32_t exchange(uint32_t value, int from);  // lanes of a warp: what lane `from` brings
uint32_t vote(bool value);                    // a bit a lane

char* shared();  // dynamic shared memory
// Asynchronous copies into shared memory, zeros where `from` is null.
void copy(uint32_t to, const void* from, int bytes);
void commit();
void wait(int pending);

// ldmatrix, mma.sync.m16n8k16 of f16 or bf16, m16n8k8 of tf32.
void load_matrix(uint32_t (&r)[4], uint32_t from, bool transposed);
void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, bool bf16);
void multiply_tf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

template <class To, class From>
To bits(const From& x) {
  static_assert(sizeof(To) == sizeof(From));
  To y;
  std::memcpy(&y, &x, sizeof y);
  return y;
}

}  // namespace host

extern host::Index threadIdx, blockIdx;
extern dim3 blockDim;

using std::max;
using std::min;

inline void __syncthreads() { host::meet(0, host::Meet::sync); }
inline int __syncthreads_or(int x) { return host::meet(x != 0, host::Meet::any); }
inline int __syncthreads_and(int x) { return host::meet(x != 0, host::Meet::all); }
inline void __syncwarp() { host::vote(false); }
template <class T>
T __shfl_sync(unsigned, T x, int lane) {
  return host::bits<T>(host::exchange(host::bits<uint32_t>(x), lane % 32));
}
inline int64_t __shfl_sync(unsigned mask, int64_t x, int lane) {
  const uint32_t low = __shfl_sync(mask, uint32_t(x), lane);
  return int64_t(uint64_t(__shfl_sync(mask, uint32_t(uint64_t(x) >> 32), lane)) << 32 | low);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T x, int lane) {
  return __shfl_sync(mask, x, int(threadIdx.x % 32) ^ lane);
}
inline unsigned __ballot_sync(unsigned, bool x) { return host::vote(x); }
inline int __all_sync(unsigned, bool x) { return host::vote(x) == ~0u; }
inline int __any_sync(unsigned, bool x) { return host::vote(x) != 0; }
inline int __reduce_max_sync(unsigned mask, int x) {
  for (int d = 16; d > 0; d /= 2) x = max(x, __shfl_xor_sync(mask, x, d));
  return x;
}
inline int __reduce_min_sync(unsigned mask, int x) {
  for (int d = 16; d > 0; d /= 2) x = min(x, __shfl_xor_sync(mask, x, d));
  return x;
}

inline uint32_t __float_as_uint(float x) { return host::bits<uint32_t>(x); }
inline float __uint_as_float(uint32_t x) { return host::bits<float>(x); }
inline float __int_as_float(int x) { return host::bits<float>(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
// Not contracted: the sum of a product and something else must round the product first.
inline float __fmul_rn(float a, float b) {
  const volatile float x = a * b;
  return x;
}
inline float __fdividef(float a, float b) { return a / b; }
namespace host {
inline float log2_fast(float x) { return log2f(x); }
}  // namespace host
#define __log2f host::log2_fast
template <class T>
T __ldcg(const T* p) {
  return *p;
}

template <class P>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* c, void (*kernel)(P), const P& p) {
  host::run(c->gridDim, c->blockDim, [&] { kernel(p); });
  return cudaSuccess;
}
template <class K>
cudaError_t cudaFuncSetAttribute(K*, cudaFuncAttribute, int) {
  return cudaSuccess;
}
template <class K>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, K*, int, size_t) {
  *blocks = 2;
  return cudaSuccess;
}
