// How 64 finished query rows leave a warpgroup. Layer: cuda (device code).
#pragma once
#include "cuda/ptx.h"
#include "cuda/sm90/call.h"
#include "cuda/sm90/row_math.h"

namespace regard::cuda::sm90 {

template <class S>
class Rows {
 public:
  using T = typename S::Element;
  using Accumulator = float[S::kD / 2];

  __device__ Rows(const Call& c, Storage<S>& m, int group, int lane, int row)
      : c_(c), m_(m), group_(group), lane_(lane), row_(row) {}

  // Divides, adds the sink's logit, writes lse and the rows. True: this thread wrote a NaN or an
  // infinity.
  __device__ __forceinline__ bool store(const Accumulator& o, const float (&max)[2],
                                        const float (&total)[2], const Work& w) {
    float factor[2];
    seen_ = 0;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = w.row + row_ + 8 * half;
      const bool inside = is_inside(row, w);
      const int head = inside ? (w.head << c_.pack) + (row & ((1 << c_.pack) - 1)) : 0;
      const Finish f = finish(c_, head, max[half] * c_.scale_log2, quad_sum(total[half]));
      factor[half] = f.factor;
      if (c_.lse && inside && (lane_ & 3) == 0) write_lse(c_, w, row, head, f.lse, f.sum);
    }
    if (S::kStaged && !c_.float_out && !c_.cu_q) {
      if constexpr (S::kStaged) store_staged(o, factor, w);
    } else {
      store_direct(o, factor, w);
    }
    return (seen_ & 0x7fff7fff) != 0;
  }

  // Rows without keys: zeros, lse -inf.
  __device__ __forceinline__ void store_empty(const Work& w) {
    const int batch = c_.cu_q ? 0 : w.batch, size = c_.float_out ? 4 : 2;
#pragma unroll 1
    for (int i = 0; i < 16; ++i) {
      const int row = w.row + row_ - lane_ / 4 + i;
      if (!is_inside(row, w)) continue;
      const int head = (w.head << c_.pack) + (row & ((1 << c_.pack) - 1));
      const int q = w.q0 + (row >> c_.pack);
      char* to = static_cast<char*>(c_.out) +
                 (batch * c_.out_batch + head * c_.out_head + q * c_.out_row) * size;
#pragma unroll 1
      for (int at = 16 * lane_; at < c_.dv * size; at += 16 * 32) {
        *reinterpret_cast<uint4*>(to + at) = make_uint4(0, 0, 0, 0);
      }
      const float sink = c_.sink_logit ? c_.sink_logit[head] : -INFINITY;
      if (c_.lse && lane_ == 0) write_lse(c_, w, row, head, sink, 0);
    }
  }

 private:
  static __device__ __forceinline__ bool is_inside(int row, const Work& w) {
    return row < w.rows && (!S::kFromEnd || row >= 0);
  }

  // Through shared memory by the copy engine, each warp its own 16 rows.
  __device__ __forceinline__ void store_staged(const Accumulator& o, const float (&factor)[2],
                                               const Work& w) {
    const int warp = group_ * 4 + threadIdx.x % 128 / 32;
    const uint32_t to = ptx::shared(m_.out[warp]);
    const int row = lane_ & 15;
    if (lane_ == 0) ptx::wait_stores();
    __syncwarp();
#pragma unroll
    for (int i = 0; i < S::kD / 16; ++i) {
      uint32_t x[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        x[j] = pack(o[8 * i + 2 * j] * factor[j % 2], o[8 * i + 2 * j + 1] * factor[j % 2], T());
        watch(x[j]);
      }
      const int word = (i % 4 * 2 + lane_ / 16) ^ (row & 7);
      ptx::store_matrices(to + i / 4 * 2048 + row * 128 + word * 16, x);
    }
    ptx::fence_async();
    __syncwarp();
    if (lane_ == 0 && (!S::kFromEnd || w.row + warp * 16 >= 0)) {
#pragma unroll
      for (int chunk = 0; chunk < S::kD / 64; ++chunk) {
        ptx::store5(&c_.o, to + chunk * 2048, chunk * 64, 0, (w.row + warp * 16) >> c_.pack, w.head,
                    w.batch);
      }
      ptx::commit_stores();
    }
  }

  // Straight from the registers: f32, packed sequences, no shared memory to spare.
  __device__ __forceinline__ void store_direct(const Accumulator& o, const float (&factor)[2],
                                               const Work& w) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = w.row + row_ + 8 * half;
      const bool inside = is_inside(row, w);
      const int head = (w.head << c_.pack) + (row & ((1 << c_.pack) - 1));
      const int64_t at = (c_.cu_q ? 0 : w.batch) * c_.out_batch + head * c_.out_head +
                         (w.q0 + (row >> c_.pack)) * c_.out_row;
      if (c_.float_out) {
        float* to = static_cast<float*>(c_.out) + at;
#pragma unroll
        for (int g = 0; g < S::kD / 8; ++g) {
          const int column = 8 * g + 2 * (lane_ & 3);
          if (inside && column < c_.dv) {
            const float x = o[4 * g + 2 * half] * factor[half];
            const float y = o[4 * g + 2 * half + 1] * factor[half];
            watch(pack(x, y, T()));
            *reinterpret_cast<float2*>(to + column) = make_float2(x, y);
          }
        }
      } else {
        T* to = static_cast<T*>(c_.out) + at;
#pragma unroll
        for (int g = 0; g < S::kD / 32; ++g) {
          uint32_t x[4];
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            x[i] = pack(o[16 * g + 4 * i + 2 * half] * factor[half],
                        o[16 * g + 4 * i + 2 * half + 1] * factor[half], T());
            watch(x[i]);
          }
          transpose(x);
          const int column = 32 * g + 8 * (lane_ & 3);
          if (inside && column < c_.dv) {
            *reinterpret_cast<uint4*>(to + column) = make_uint4(x[0], x[1], x[2], x[3]);
          }
        }
      }
    }
  }

  // 4 x 4 words across the four lanes of a row: lane i ends with word i of each.
  __device__ __forceinline__ void transpose(uint32_t (&x)[4]) {
#pragma unroll
    for (int bit = 1; bit <= 2; bit *= 2) {
      const bool upper = lane_ & bit;
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int low = bit == 1 ? 2 * j : j, high = low + bit;
        const uint32_t got = __shfl_xor_sync(~0u, upper ? x[low] : x[high], bit);
        x[low] = upper ? got : x[low];
        x[high] = upper ? x[high] : got;
      }
    }
  }

  __device__ __forceinline__ void watch(uint32_t x) { seen_ = absorb(x, seen_, T()); }

  const Call& c_;
  Storage<S>& m_;
  const int group_, lane_, row_;
  uint32_t seen_ = 0;  // zero until a NaN or infinity was seen
};

}  // namespace regard::cuda::sm90
