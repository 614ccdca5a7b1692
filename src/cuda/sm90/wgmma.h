// wgmma: D[64, n] (+)= A[64, 16] B[16, n], f32 accumulators in registers. Layer: cuda (device
// code).
//
// Operands in shared memory are described by 64-bit descriptors of tiles whose rows are 128 bytes
// (64 elements) in the 128-byte swizzle that the tensor copies write:
//   K-major  (rows run along n, columns along k):  8-row groups 1024 bytes apart;
//   MN-major (rows run along k, columns along n):  8-row groups 1024 bytes apart, and the next 64
//             columns of n `chunk` bytes further.
// Accumulators: thread t of the warpgroup holds, of row 16 (t / 32) + t % 32 / 4 and column
// 8 g + 2 (t % 4), d[4 g] and d[4 g + 1]; d[4 g + 2] and d[4 g + 3] are eight rows below.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace regard::cuda::wgmma {

__device__ __forceinline__ void fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Waits until at most kPending groups are in flight.
template <int kPending>
__device__ __forceinline__ void wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// Tells the compiler that d may change here: placed around waits, so that reads stay behind them.
template <int kCount>
__device__ __forceinline__ void pin(float (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

// Adding n to a descriptor moves it by 16 n bytes.
constexpr uint64_t kSwizzle128 = 1ull << 62 | 64ull << 32;  // 1024 bytes from group to group
__device__ __forceinline__ uint64_t k_major(uint32_t address) {
  return kSwizzle128 | 1ull << 16 | (address & 0x3FFFF) >> 4;
}
__device__ __forceinline__ uint64_t mn_major(uint32_t address, uint32_t chunk) {
  return kSwizzle128 | static_cast<uint64_t>(chunk >> 4) << 16 | (address & 0x3FFFF) >> 4;
}
// The same descriptor `bytes` further on.
__device__ __forceinline__ uint64_t moved(uint64_t base, uint32_t bytes) {
  const uint32_t low = static_cast<uint32_t>(base) + (bytes >> 4);
  return (base >> 32 << 32) | low;
}

// The operand lists of the instruction, eight accumulators a name.
#define REGARD_D0 "%0, %1, %2, %3, %4, %5, %6, %7"
#define REGARD_D1 "%8, %9, %10, %11, %12, %13, %14, %15"
#define REGARD_D2 "%16, %17, %18, %19, %20, %21, %22, %23"
#define REGARD_D3 "%24, %25, %26, %27, %28, %29, %30, %31"
#define REGARD_D4 "%32, %33, %34, %35, %36, %37, %38, %39"
#define REGARD_D5 "%40, %41, %42, %43, %44, %45, %46, %47"
#define REGARD_D6 "%48, %49, %50, %51, %52, %53, %54, %55"
#define REGARD_D7 "%56, %57, %58, %59, %60, %61, %62, %63"
#define REGARD_D8 "%64, %65, %66, %67, %68, %69, %70, %71"
#define REGARD_D9 "%72, %73, %74, %75, %76, %77, %78, %79"
#define REGARD_D10 "%80, %81, %82, %83, %84, %85, %86, %87"
#define REGARD_D11 "%88, %89, %90, %91, %92, %93, %94, %95"
#define REGARD_D12 "%96, %97, %98, %99, %100, %101, %102, %103"
#define REGARD_D13 "%104, %105, %106, %107, %108, %109, %110, %111"
#define REGARD_D14 "%112, %113, %114, %115, %116, %117, %118, %119"
#define REGARD_D15 "%120, %121, %122, %123, %124, %125, %126, %127"
#define REGARD_F8(i)                                                                          \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define REGARD_D_N64 REGARD_D0 ", " REGARD_D1 ", " REGARD_D2 ", " REGARD_D3
#define REGARD_F_N64 REGARD_F8(0), REGARD_F8(8), REGARD_F8(16), REGARD_F8(24)
#define REGARD_D_N80 REGARD_D0 ", " REGARD_D1 ", " REGARD_D2 ", " REGARD_D3 ", " REGARD_D4
#define REGARD_F_N80 REGARD_F8(0), REGARD_F8(8), REGARD_F8(16), REGARD_F8(24), REGARD_F8(32)
#define REGARD_D_N128                                                                  \
  REGARD_D0 ", " REGARD_D1 ", " REGARD_D2 ", " REGARD_D3 ", " REGARD_D4 ", " REGARD_D5 \
            ", " REGARD_D6 ", " REGARD_D7
#define REGARD_F_N128                                                                     \
  REGARD_F8(0), REGARD_F8(8), REGARD_F8(16), REGARD_F8(24), REGARD_F8(32), REGARD_F8(40), \
      REGARD_F8(48), REGARD_F8(56)
#define REGARD_D_N256                                                                   \
  REGARD_D0 ", " REGARD_D1 ", " REGARD_D2 ", " REGARD_D3 ", " REGARD_D4 ", " REGARD_D5  \
            ", " REGARD_D6 ", " REGARD_D7 ", " REGARD_D8 ", " REGARD_D9 ", " REGARD_D10 \
            ", " REGARD_D11 ", " REGARD_D12 ", " REGARD_D13 ", " REGARD_D14 ", " REGARD_D15
#define REGARD_F_N256                                                                           \
  REGARD_F8(0), REGARD_F8(8), REGARD_F8(16), REGARD_F8(24), REGARD_F8(32), REGARD_F8(40),       \
      REGARD_F8(48), REGARD_F8(56), REGARD_F8(64), REGARD_F8(72), REGARD_F8(80), REGARD_F8(88), \
      REGARD_F8(96), REGARD_F8(104), REGARD_F8(112), REGARD_F8(120)

template <class T, int kN>
struct Mma;

// ss: A K-major in shared memory, B K-major. rs: A in registers, B MN-major (kMn) or K-major.
// `add` false: D starts at zero. A0.. are the operand numbers after the kN / 2 accumulators.
#define REGARD_MMA(T, NAME, N, A0, A1, A2, A3, A4, A5, A6)                                      \
  template <>                                                                                   \
  struct Mma<T, N> {                                                                            \
    static __device__ __forceinline__ void ss(float (&d)[N / 2], uint64_t a, uint64_t b,        \
                                              bool add) {                                       \
      asm volatile("{\n .reg .pred p;\n setp.ne.b32 p, %" #A2                                   \
                   ", 0;\n wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." NAME "." NAME       \
                   " {" REGARD_D_N##N "}, %" #A0 ", %" #A1 ", p, 1, 1, 0, 0;\n}\n"              \
                   : REGARD_F_N##N                                                              \
                   : "l"(a), "l"(b), "r"(static_cast<int>(add)));                               \
    }                                                                                           \
    template <int kMn>                                                                          \
    static __device__ __forceinline__ void rs(float (&d)[N / 2], const uint32_t* a, uint64_t b, \
                                              bool add) {                                       \
      asm volatile("{\n .reg .pred p;\n setp.ne.b32 p, %" #A5                                   \
                   ", 0;\n wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." NAME "." NAME       \
                   " {" REGARD_D_N##N "}, {%" #A0 ", %" #A1 ", %" #A2 ", %" #A3 "}, %" #A4      \
                                      ", p, 1, 1, %" #A6 ";\n}\n"                               \
                   : REGARD_F_N##N                                                              \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b),                        \
                     "r"(static_cast<int>(add)), "n"(kMn));                                     \
    }                                                                                           \
  }
REGARD_MMA(__nv_bfloat16, "bf16", 64, 32, 33, 34, 35, 36, 37, 38);
REGARD_MMA(__half, "f16", 64, 32, 33, 34, 35, 36, 37, 38);
REGARD_MMA(__nv_bfloat16, "bf16", 80, 40, 41, 42, 43, 44, 45, 46);
REGARD_MMA(__half, "f16", 80, 40, 41, 42, 43, 44, 45, 46);
REGARD_MMA(__nv_bfloat16, "bf16", 128, 64, 65, 66, 67, 68, 69, 70);
REGARD_MMA(__half, "f16", 128, 64, 65, 66, 67, 68, 69, 70);
REGARD_MMA(__nv_bfloat16, "bf16", 256, 128, 129, 130, 131, 132, 133, 134);
REGARD_MMA(__half, "f16", 256, 128, 129, 130, 131, 132, 133, 134);
#undef REGARD_MMA

}  // namespace regard::cuda::wgmma
