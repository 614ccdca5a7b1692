// Rows spoilt by values that they do not read: the products multiply the forbidden keys of a step
// by weights that are zero, and zero times NaN or infinity is NaN. A warp notices when its rows
// leave, lists the work, and computes those rows again, pair by pair, when all works are done.
// Layer: cuda (device code).
#pragma once
#include "cuda/ptx.h"
#include "cuda/sm90/call.h"
#include "cuda/sm90/producer.h"
#include "cuda/sm90/row_math.h"

namespace regard::cuda::sm90 {

template <class S>
class Repair {
 public:
  using T = typename S::Element;
  __device__ Repair(const Call& c, int warp) : c_(c), warp_(warp), lane_(threadIdx.x & 31) {}

  // Works are chained through Call::links, a chain a warp.
  __device__ void run(int number) {
    for (; number >= 0; number = c_.links[number * kWarps + warp_]) {
      describe<S>(c_, number, w_);
      batch_ = c_.cu_q ? 0 : w_.batch;
      k0_ = c_.cu_q ? c_.cu_k[w_.batch] : 0;
      if (!spoilt()) continue;
      for (int row = max(0, w_.row + 16 * warp_); row < min(w_.row + 16 * warp_ + 16, w_.rows);
           ++row) {
        compute(row);
      }
    }
  }

 private:
  static constexpr int kWarps = 4 * S::kGroups;
  static constexpr int kColumns = S::kD / 32;  // of the output, a lane

  __device__ const T* row_of(const Raw& x, int head, int row) const {
    return static_cast<const T*>(x.data) + batch_ * x.batch + head * x.head + row * x.row;
  }
  __device__ const T* key_row(int key) const {
    return row_of(c_.raw_k, quotient(w_.head, c_.sharing), k0_ + key);
  }
  __device__ const T* value_row(int key) const {
    return row_of(c_.raw_v, quotient(w_.head, c_.sharing), k0_ + key);
  }

  // Whether a step with forbidden pairs holds a NaN or infinity. If none does, the row reads it.
  __device__ bool spoilt() const {
    Steps<S> steps(c_, w_);
    bool bad = false;
    for (int t = 0; t < steps.count; ++t) {
      const Step step = steps.at(t);
      if (!__any_sync(~0u, step.mask) || steps.gathers(t)) continue;
      for (int i = 0; i < S::kKeys; ++i) {
        const int key = step.key[i / S::kPiece] + i % S::kPiece;
        if (key >= c_.nk - k0_) continue;
        const T* v = value_row(key);
        for (int d = lane_; d < c_.dv; d += 32) bad |= !isfinite(static_cast<float>(v[d]));
      }
    }
    return __any_sync(~0u, bad);
  }

  __device__ void compute(int row) const {
    const int query = row >> c_.pack, at = query + w_.shift;
    const int head = (w_.head << c_.pack) + (row & ((1 << c_.pack) - 1));
    const T* q = row_of(c_.raw_q, head, w_.q0 + query);
    const float slope = c_.alibi ? c_.alibi[head] : 0;
    float top = -INFINITY, sum = 0, out[kColumns] = {};
    Steps<S> steps(c_, w_);
    for (int t = 0; t < steps.count; ++t) {
      const Step step = steps.at(t);
      for (int i = 0; i < S::kKeys; i += 32) {
        const int column = i + lane_;
        const int key = steps.key_of(t, step, column);
        float x = -INFINITY;
        if (column < S::kKeys && reads(at, key)) {
          x = dot(q, key_row(key));
          x = S::kHooks ? hooked(c_, x, slope, at - key) : __fmul_rn(x, c_.scale_log2);
        }
        float to = x == x ? x : -INFINITY;
#pragma unroll
        for (int lane = 16; lane > 0; lane /= 2) to = fmaxf(to, __shfl_xor_sync(~0u, to, lane));
        to = fmaxf(to, top);
        const float shrink = relative(top, to), weight = relative(x, to);
        sum = sum * shrink + weight;
        for (float& o : out) o *= shrink;
        top = to;
        for (uint32_t left = __ballot_sync(~0u, x != -INFINITY); left; left &= left - 1) {
          const int from = __ffs(left) - 1;
          const float p = __shfl_sync(~0u, weight, from);
          const T* v = value_row(__shfl_sync(~0u, key, from));
#pragma unroll
          for (int n = 0; n < kColumns; ++n) {
            const int d = lane_ + 32 * n;
            if (d < c_.dv) out[n] += p * static_cast<float>(v[d]);
          }
        }
        bool lost = true;  // nothing brings a NaN back
        for (int n = 0; n < kColumns; ++n) lost &= lane_ + 32 * n >= c_.dv || out[n] != out[n];
        if (__all_sync(~0u, lost)) {
          t = steps.count;
          break;
        }
      }
    }
#pragma unroll
    for (int lane = 16; lane > 0; lane /= 2) sum += __shfl_xor_sync(~0u, sum, lane);
    const auto [factor, lse, total] = finish(c_, head, top, sum);
    if (c_.lse && lane_ == 0) write_lse(c_, w_, row, head, lse, total);
    const int64_t to = batch_ * c_.out_batch + head * c_.out_head + (w_.q0 + query) * c_.out_row;
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
      const int d = lane_ + 32 * n;
      if (d >= c_.dv) continue;
      if (c_.float_out) {
        static_cast<float*>(c_.out)[to + d] = out[n] * factor;
      } else {
        static_cast<T*>(c_.out)[to + d] = static_cast<T>(out[n] * factor);
      }
    }
  }

  __device__ bool reads(int at, int key) const {
    return key < min(w_.nk, at + c_.right) && (key >= at + c_.left || key < c_.sink);
  }
  __device__ float dot(const T* a, const T* b) const {
    float sum = 0;
    for (int i = 0; i < c_.dk; ++i) sum += static_cast<float>(a[i]) * static_cast<float>(b[i]);
    return sum;
  }

  const Call& c_;
  const int warp_, lane_;
  Work w_;
  int batch_ = 0, k0_ = 0;
};

}  // namespace regard::cuda::sm90
