// A consumer warpgroup: 64 query rows, online softmax over the steps that the producer announces.
//
// While QK of step t + 1 and PV of step t are in flight, nothing waits on the softmax of step t;
// at the end of a tile of rows, QK of the next tile's first step takes the place of step t + 1.
// Named barriers let one warpgroup at a time issue its products, so that another one's softmax
// runs under them. Layer: cuda (device code).
#pragma once
#include "cuda/ptx.h"
#include "cuda/sm90/call.h"
#include "cuda/sm90/wgmma.h"

namespace regard::cuda::sm90 {

__device__ __forceinline__ uint32_t pack(float a, float b, __nv_bfloat16) {
  const __nv_bfloat162 x = __floats2bfloat162_rn(a, b);
  return reinterpret_cast<const uint32_t&>(x);
}
__device__ __forceinline__ uint32_t pack(float a, float b, __half) {
  const __half2 x = __floats2half2_rn(a, b);
  return reinterpret_cast<const uint32_t&>(x);
}
__device__ __forceinline__ float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
  return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}
__device__ __forceinline__ float quad_sum(float x) {
  x += __shfl_xor_sync(~0u, x, 1);
  return x + __shfl_xor_sync(~0u, x, 2);
}

template <class S>
class Consumer {
 public:
  using T = typename S::Element;
  using Qk = wgmma::Mma<T, S::kKeys>;
  using Pv = wgmma::Mma<T, S::kD>;
  using Scores = float[S::kKeys / 2];
  using Accumulator = float[S::kD / 2];
  using Weights = uint32_t[S::kKeys / 4];
  // The statistics of this thread's two rows (r and r + 8): raw maximum, sum over own columns.
  struct Stats {
    float max[2], sum[2];
  };

  __device__ Consumer(const Call& c, Storage<S>& m)
      : c_(c), m_(m), group_(threadIdx.x / 128 - 1), lane_(threadIdx.x & 31) {
    row_ = group_ * 64 + (threadIdx.x % 128) / 32 * 16 + lane_ / 4;
    if (kTurns && group_ == S::kGroups - 1) ptx::signal(kFirstTurn, 256);
  }

  __device__ void run() {
    Accumulator o;
    Scores s;
    Weights p;
    Stats now;
    bool more = next_work();
    bool primed = false;
    while (more) {
      if (!primed) {
        issue_qk(s, false);
        wgmma::wait<0>();
        wgmma::pin(s);
        const Step step = take_step();
        first_softmax(s, now, step);
        to_weights(s, p);
      }
      for (int t = 1; t < steps_; ++t) {
        issue_qk(s, true);
        issue_pv(o, p, t > 1);
        my_turn_ends();
        wgmma::wait<1>();
        wgmma::pin(s);
        const Step step = take_step();
        float shrink[2];
        const bool moved = softmax(s, now, step, shrink);
        wgmma::wait<0>();
        wgmma::pin(o);
        give_back_v();
        if (moved) rescale(o, shrink);
        to_weights(s, p);
      }
      const bool alone = steps_ == 1;
      const int work = work_slot_;
      if constexpr (S::kQStages == 2) {
        give_back_q();
        more = next_work();
        primed = more;
        if (more) {
          issue_qk(s, true);
          issue_pv(o, p, !alone);
          my_turn_ends();
          wgmma::wait<1>();
          wgmma::pin(s);
          const Step step = take_step();
          const Stats before = now;
          first_softmax(s, now, step);
          wgmma::wait<0>();
          wgmma::pin(o);
          give_back_v();
          store(o, before, m_.work[work]);
          to_weights(s, p);
          continue;
        }
      } else {
        give_back_q();
      }
      issue_pv(o, p, !alone);
      wgmma::wait<0>();
      wgmma::pin(o);
      give_back_v();
      store(o, now, m_.work[work]);
      if constexpr (S::kQStages == 1) more = next_work();
    }
  }

 private:
  static constexpr bool kTurns = S::kGroups > 1 && S::kD <= 128;
  static constexpr uint32_t kFirstTurn = 1;  // named barrier of group 0; 0 is __syncthreads

  __device__ __forceinline__ void my_turn() {
    if constexpr (kTurns) ptx::sync(kFirstTurn + group_, 256);
  }
  __device__ __forceinline__ void my_turn_ends() {
    if constexpr (kTurns) {
      ptx::signal(kFirstTurn + (group_ + 1 == S::kGroups ? 0 : group_ + 1), 256);
    }
  }

  // Waits for the next rows that have keys (rows without any are written here). False: no more.
  __device__ __forceinline__ bool next_work() {
    while (true) {
      ptx::wait(&m_.q_full[q_.slot], q_.phase);
      work_slot_ = next_slot_;
      next_slot_ = (next_slot_ + 1) % kWorkSlots;
      steps_ = m_.work[work_slot_].steps;
      if (steps_ != 0) return steps_ > 0;
      store_empty(m_.work[work_slot_]);
      give_back_q();
    }
  }
  __device__ __forceinline__ void give_back_q() {
    __syncwarp();
    if (lane_ == 0) ptx::arrive(&m_.q_empty[q_.slot]);
    q_.advance();
  }
  __device__ __forceinline__ void give_back_v() {
    if (lane_ == 0) ptx::arrive(&m_.v_empty[v_.slot]);
    v_.advance();
  }
  // Reads what the producer said of this step, then gives its keys back: QK has finished.
  __device__ __forceinline__ Step take_step() {
    const Step step = m_.step[k_.slot];
    __syncwarp();
    if (lane_ == 0) ptx::arrive(&m_.k_empty[k_.slot]);
    k_.advance();
    return step;
  }

  // S = Q K^T
  __device__ __forceinline__ void issue_qk(Scores& s, bool turn) {
    ptx::wait(&m_.k_full[k_.slot], k_.phase);
    if (turn) my_turn();
    wgmma::pin(s);
    wgmma::fence();
    const uint64_t a = wgmma::k_major(ptx::shared(m_.q[q_.slot]) + group_ * 64 * 128);
    const uint64_t b = wgmma::k_major(ptx::shared(m_.k[k_.slot]));
#pragma unroll
    for (int i = 0; i < S::kD / 16; ++i) {
      // 16 elements are 32 bytes of a 128-byte row; descriptors count 16 bytes.
      Qk::ss(s, a + (i / 4) * (S::kRows * 8) + (i % 4) * 2, b + (i / 4) * (S::kKeys * 8) + (i % 4) * 2,
             i > 0);
    }
    wgmma::commit();
  }

  // O (+)= P V
  __device__ __forceinline__ void issue_pv(Accumulator& o, Weights& p, bool add) {
    ptx::wait(&m_.v_full[v_.slot], v_.phase);
    wgmma::pin(o);
    wgmma::fence();
    const uint64_t b = wgmma::mn_major(ptx::shared(m_.v[v_.slot]), S::kKeys * 128);
#pragma unroll
    for (int i = 0; i < S::kKeys / 16; ++i) {
      Pv::rs(o, &p[4 * i], b + i * (16 * 8), add || i > 0);
    }
    wgmma::commit();
  }

  __device__ __forceinline__ int query(const Work& w, int half) const {
    return (w.row + row_ + 8 * half) >> c_.pack;
  }

  // Forbidden pairs to -inf. Column of element i of a row: 8 (i / 2) + 2 (lane % 4) + i % 2.
  __device__ __forceinline__ void mask(Scores& s, const Step& step) {
    const Work& w = m_.work[work_slot_];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int at = query(w, half) + w.shift;
      const int high = min(w.nk, at + c_.right), low = at + c_.left;
#pragma unroll
      for (int i = 0; i < S::kKeys / 4; ++i) {
        const int column = 8 * (i / 2) + i % 2;
        const int key = (column < S::kPiece ? step.key[0] + column
                                            : step.key[1] + column - S::kPiece) +
                        2 * (lane_ & 3);
        const bool keep = key < high && (key >= low || key < c_.sink);
        if (!keep) s[4 * (i / 2) + 2 * half + i % 2] = -INFINITY;
      }
    }
  }

  // Score hooks: logits in log2 units, after the soft-cap and with ALiBi.
  __device__ __forceinline__ void hook(Scores& s, const Step& step) {
    constexpr float kLog2e = 1.4426950408889634f;
    const Work& w = m_.work[work_slot_];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int at = query(w, half) + w.shift;
      const int head = (w.head << c_.pack) + ((w.row + row_ + 8 * half) & ((1 << c_.pack) - 1));
      const float slope = c_.alibi ? c_.alibi[head] : 0;
#pragma unroll
      for (int i = 0; i < S::kKeys / 4; ++i) {
        const int column = 8 * (i / 2) + i % 2;
        const int key = (column < S::kPiece ? step.key[0] + column
                                            : step.key[1] + column - S::kPiece) +
                        2 * (lane_ & 3);
        float& x = s[4 * (i / 2) + 2 * half + i % 2];
        x *= c_.scale;
        // tanh by exponentials: the approximate instruction has too few bits for a large cap.
        if (c_.softcap > 0) {
          const float e = ptx::exp2(fminf(fabsf(x) / c_.softcap, 40.f) * (-2 * kLog2e));
          x = copysignf(c_.softcap * (1 - e) / (1 + e), x);
        }
        x = (x - slope * fabsf(static_cast<float>(at - key))) * kLog2e;
      }
    }
  }

  __device__ __forceinline__ void prepare(Scores& s, const Step& step) {
    if constexpr (S::kHooks) hook(s, step);
    if (step.mask) mask(s, step);
  }

  __device__ __forceinline__ void row_max(const Scores& s, float (&top)[2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      // Two chains halve the latency.
      float a = s[2 * half], b = s[2 * half + 1];
#pragma unroll
      for (int i = 1; i < S::kKeys / 8; ++i) {
        a = fmaxf(a, s[4 * i + 2 * half]);
        b = fmaxf(b, s[4 * i + 2 * half + 1]);
      }
      top[half] = quad_max(fmaxf(a, b));
    }
  }

  // s = exp2(scale_log2 s - max), and its sums by row.
  __device__ __forceinline__ void exponentials(Scores& s, const Stats& now, float (&sum)[2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float m = now.max[half] == -INFINITY ? 0.f : now.max[half] * c_.scale_log2;
      float a = 0, b = 0;
#pragma unroll
      for (int i = 0; i < S::kKeys / 8; ++i) {
        float& x = s[4 * i + 2 * half];
        float& y = s[4 * i + 2 * half + 1];
        x = ptx::exp2(fmaf(x, c_.scale_log2, -m));
        y = ptx::exp2(fmaf(y, c_.scale_log2, -m));
        a += x;
        b += y;
      }
      sum[half] = a + b;
    }
  }

  __device__ __forceinline__ void first_softmax(Scores& s, Stats& now, const Step& step) {
    prepare(s, step);
    row_max(s, now.max);
    exponentials(s, now, now.sum);
  }

  // The maximum follows only when it moves by more than 8 in log2 units: weights stay below 2^8,
  // and the final division makes any shift exact. True: `o` must shrink.
  __device__ __forceinline__ bool softmax(Scores& s, Stats& now, const Step& step,
                                          float (&shrink)[2]) {
    prepare(s, step);
    float top[2];
    row_max(s, top);
    const float limit = 8.f;
    const bool moves = (top[0] - now.max[0]) * c_.scale_log2 > limit ||
                       (top[1] - now.max[1]) * c_.scale_log2 > limit;
    const bool moved = __any_sync(~0u, moves);
    if (moved) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float to = fmaxf(now.max[half], top[half]);
        shrink[half] = to == -INFINITY ? 1.f : ptx::exp2((now.max[half] - to) * c_.scale_log2);
        now.sum[half] *= shrink[half];
        now.max[half] = to;
      }
    }
    float sum[2];
    exponentials(s, now, sum);
    now.sum[0] += sum[0];
    now.sum[1] += sum[1];
    return moved;
  }

  __device__ __forceinline__ void rescale(Accumulator& o, const float (&shrink)[2]) {
#pragma unroll
    for (int i = 0; i < S::kD / 2; ++i) o[i] *= shrink[i / 2 % 2];
  }

  // Scores' layout is the A operand's: 16 keys are two groups of eight.
  __device__ __forceinline__ void to_weights(const Scores& s, Weights& p) {
#pragma unroll
    for (int i = 0; i < S::kKeys / 4; ++i) p[i] = pack(s[2 * i], s[2 * i + 1], T());
  }

  // Divides, adds the sink's logit, writes lse and the rows.
  __device__ __forceinline__ void store(Accumulator& o, const Stats& stats, const Work& w) {
    constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = w.row + row_ + 8 * half;
      const bool inside = row < w.rows;
      const int head = (w.head << c_.pack) + (row & ((1 << c_.pack) - 1));
      const int q = w.q0 + (row >> c_.pack);
      float sum = quad_sum(stats.sum[half]);
      float top = stats.max[half] * c_.scale_log2, factor = 1;
      if (c_.sink_logit && inside) {
        const float sink = c_.sink_logit[head] * kLog2e, to = fmaxf(top, sink);
        factor = ptx::exp2(top - to);
        sum = sum * factor + ptx::exp2(sink - to);
        top = to;
      }
      const float lse = sum == 0 ? -INFINITY : (top + ptx::log2(sum)) * kLn2;
      factor = sum == 0 ? 0.f : factor / sum;
      const int batch = c_.cu_q ? 0 : w.batch;
      if (c_.lse && inside && (lane_ & 3) == 0) {
        c_.lse[(static_cast<int64_t>(batch) * (c_.heads << c_.pack) + head) * c_.lse_head + q] = lse;
      }
      const int64_t at = batch * c_.out_batch + head * c_.out_head + q * c_.out_row;
      if (c_.float_out) {
        float* to = static_cast<float*>(c_.out) + at;
#pragma unroll
        for (int g = 0; g < S::kD / 8; ++g) {
          const int column = 8 * g + 2 * (lane_ & 3);
          if (inside && column < c_.dv) {
            *reinterpret_cast<float2*>(to + column) =
                make_float2(o[4 * g + 2 * half] * factor, o[4 * g + 2 * half + 1] * factor);
          }
        }
      } else {
        T* to = static_cast<T*>(c_.out) + at;
#pragma unroll
        for (int g = 0; g < S::kD / 32; ++g) {
          uint32_t x[4];
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            x[i] = pack(o[16 * g + 4 * i + 2 * half] * factor,
                        o[16 * g + 4 * i + 2 * half + 1] * factor, T());
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

  __device__ __forceinline__ void store_empty(const Work& w) {
    Accumulator o;
#pragma unroll
    for (float& x : o) x = 0;
    store(o, Stats{{-INFINITY, -INFINITY}, {0, 0}}, w);
  }

  const Call& c_;
  Storage<S>& m_;
  const int group_, lane_;
  int row_;  // of the tile: this thread's first row
  Ring<S::kQStages> q_;
  Ring<S::kKvStages> k_, v_;
  int work_slot_ = 0, next_slot_ = 0, steps_ = 0;
};

}  // namespace regard::cuda::sm90
