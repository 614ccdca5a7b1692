// A consumer warpgroup: 64 query rows, online softmax over the steps that the producer announces.
//
// Steps form one stream: QK of a step is issued together with PV of the step before it, also when
// that one belongs to other rows, and its softmax runs while PV does.
// Where there are three, named barriers let one warpgroup at a time issue its products, so that
// another one's softmax runs under them. Layer: cuda (device code).
#pragma once
#include "cuda/maxima.h"
#include "cuda/ptx.h"
#include "cuda/sm90/call.h"
#include "cuda/sm90/repair.h"
#include "cuda/sm90/rows.h"
#include "cuda/sm90/weights.h"
#include "cuda/sm90/wgmma.h"

namespace regard::cuda::sm90 {

template <class S>
class Consumer {
 public:
  using T = typename S::Element;
  using Qk = wgmma::Mma<T, S::kKeys>;
  using Pv = wgmma::Mma<T, S::kD>;
  using Scores = float[S::kKeys / 2];
  using Accumulator = float[S::kD / 2];
  using Weights = uint32_t[S::kKeys / 4];
  // The statistics of this thread's two rows (r and r + 8): raw maximum, sum over own columns, the
  // score beyond which the maximum follows; `rare`, of the warp: large scores, or rows without any.
  struct Stats {
    float max[2], sum[2], limit[2];
    bool rare;
  };
  // A step as the consumers follow it: a copy, as its slot is given back on the way.
  struct Part {
    Step step;
    int slot;    // of its work
    bool first;  // of its work
  };

  __device__ Consumer(const Call& c, Storage<S>& m)
      : c_(c),
        m_(m),
        group_(__shfl_sync(~0u, threadIdx.x / 128, 0) - 1),
        lane_(threadIdx.x & 31),
        row_(group_ * 64 + (threadIdx.x % 128) / 32 * 16 + lane_ / 4),
        rows_(c, m, group_, lane_, row_) {
    if (kTurns && group_ == S::kGroups - 1) ptx::signal(kFirstTurn, 256);
  }

  // With two slots for Q, or Q in registers, works follow one another inside the inner loop, in one
  // copy of its code, and the outer one is for rows without keys between them. (Straight code that
  // runs once a work misses the instruction cache, which costs more than its arithmetic.)
  __device__ void run() {
    Accumulator o;
    Scores s;
    Weights p;
    bool more = next_work(false);
    while (more) {
      step<true>(o, s, p);
      while (step<false>(o, s, p)) continue;
      ptx::wait(v_full(), v_.phase);
      issue_pv(o, p);
      arrive(o);
      give_back_v();
      store(o, now_, weighed_.slot);
      more = (!kStream || steps_ >= 0) && next_work(false);
    }
    const int warp = threadIdx.x / 32 - 4;
    if (lane_ == 0) ptx::wait_writes();
    __syncwarp();
    Repair<S>(c_, warp).run(m_.spoilt[warp]);
  }

 private:
  // The next work's first QK overlaps this one's last PV.
  static constexpr bool kStream = S::kQStages == 2 || S::kQRegisters;
  static constexpr bool kTurns = S::kGroups == 3;  // two groups find their rhythm alone
  static constexpr uint32_t kFirstTurn = 1;        // named barrier of group 0; 0 is __syncthreads

  static __device__ __forceinline__ constexpr uint32_t at(size_t offset) {
    return kSharedBase + static_cast<uint32_t>(offset);
  }
  __device__ __forceinline__ uint32_t k_full() const {
    return at(offsetof(Storage<S>, k_full)) + 8 * k_.slot;
  }
  __device__ __forceinline__ uint32_t v_full() const {
    return at(offsetof(Storage<S>, v_full)) + 8 * v_.slot;
  }
  __device__ __forceinline__ void my_turn() {
    if constexpr (kTurns) ptx::sync(kFirstTurn + group_, 256);
  }
  __device__ __forceinline__ void my_turn_ends() {
    if constexpr (kTurns) {
      ptx::signal(kFirstTurn + (group_ + 1 == S::kGroups ? 0 : group_ + 1), 256);
    }
  }

  // Rows leave. Those with a NaN or infinity join this warp's chain of works (repair.h).
  __device__ __forceinline__ void store(const Accumulator& o, const Stats& x, int slot) {
    const Work& w = m_.work[slot];
    if (__any_sync(~0u, rows_.store(o, x.max, x.sum, w)) && lane_ == 0) {
      const int warp = threadIdx.x / 32 - 4;
      c_.links[w.number * 4 * S::kGroups + warp] = m_.spoilt[warp];
      m_.spoilt[warp] = w.number;
    }
  }

  // Waits for the next rows that have keys (rows without any are written here). False: no more, or
  // none before the `pending` rows have left, whose work's slot lasts for a few others.
  __device__ __forceinline__ bool next_work(bool pending) {
    while (true) {
      ptx::wait(&m_.q_full[q_.slot], q_.phase);
      const int steps = __shfl_sync(~0u, m_.work[next_slot_].steps, 0);
      if (pending && steps == 0) return false;
      steps_ = steps;
      work_slot_ = next_slot_;
      next_slot_ = (next_slot_ + 1) % kWorkSlots;
      t_ = 0;
      if (steps_ < 0) return false;
      if (steps_ > 0) {
        if constexpr (S::kQRegisters) {
          load_q();
          give_back_q();
        }
        return true;
      }
      rows_.store_empty(m_.work[work_slot_]);
      give_back_q();
    }
  }
  // Whether there is a step t_ of this work or, where works form a stream, of the next.
  __device__ __forceinline__ bool next() {
    if (t_ < steps_) return true;
    if constexpr (!S::kQRegisters) give_back_q();
    return kStream && next_work(true);
  }

  // The scores of the next step become weights, under the products of the weights before. kFirst:
  // there are none before. False: there is no next step.
  template <bool kFirst>
  __device__ __forceinline__ bool step(Accumulator& o, Scores& s, Weights& p) {
    if (!kFirst && !next()) return false;  // a first step is there already
    if (!k_here_) ptx::wait(k_full(), k_.phase);
    if (!kFirst && !v_here_) ptx::wait(v_full(), v_.phase);
    const Part part = {m_.step[k_.slot], work_slot_, kFirst || (kStream && t_ == 0)};
    ++t_;
    my_turn();
    issue_qk(s);
    if constexpr (!kFirst) issue_pv(o, p);
    my_turn_ends();
    const Stats before = now_;
    if (part.first) clear(now_);
    float shrink[2];
    const bool moved = softmax<!kFirst>(s, shrink, part);
    // The whole warpgroup must make the wait together, so no branch of one warp's holds it. A
    // branch ahead of it keeps it behind the exponentials: in one block the compiler moves it
    // before them.
    wgmma::pin(s);
    wgmma::pin(now_.sum);
    if (moved) limit(now_);
    if constexpr (!kFirst) {
      arrive(o);
      give_back_v();
      if (moved) {
        if (part.first) {
          store(o, before, weighed_.slot);
        } else {
          rescale(o, shrink);
        }
      }
    }
    k_here_ = ptx::over(k_full(), k_.phase);
    v_here_ = ptx::over(v_full(), v_.phase);
    round_weights<T>(s, p);
    weighed_ = part;
    return true;
  }
  __device__ __forceinline__ void arrive(Accumulator& o) {
    wgmma::wait<0>();
    wgmma::pin(o);
  }

  // Every lane arrives where all lanes have read what the producer wrote: a work, a step.
  __device__ __forceinline__ void give_back_q() {
    ptx::arrive(&m_.q_empty[q_.slot]);
    q_.advance();
  }
  __device__ __forceinline__ void give_back_v() {
    if (lane_ == 0) ptx::arrive(at(offsetof(Storage<S>, v_empty)) + 8 * v_.slot);
    v_.advance();
  }
  __device__ __forceinline__ void give_back_k() {
    ptx::arrive(at(offsetof(Storage<S>, k_empty)) + 8 * k_.slot);
    k_.advance();
  }

  // This warp's 16 rows of Q as A operands: 16 x 16 elements are four registers.
  __device__ __forceinline__ void load_q() {
    const int row = group_ * 64 + (threadIdx.x % 128) / 32 * 16 + (lane_ & 15);
    const uint32_t base = ptx::shared(m_.q[q_.slot]) + row * 128;
#pragma unroll
    for (int i = 0; i < S::kD / 16; ++i) {
      const int word = (i % 4 * 2 + lane_ / 16) ^ (row & 7);
      ptx::load_matrices(&q_registers_[4 * i], base + i / 4 * (S::kRows * 128) + word * 16);
    }
  }

  // S = Q K^T
  __device__ __forceinline__ void issue_qk(Scores& s) {
    wgmma::pin(s);
    wgmma::fence();
    const uint64_t a = wgmma::moved(wgmma::k_major(at(offsetof(Storage<S>, q))),
                                    q_.slot * S::kQBytes + group_ * 64 * 128);
    const uint64_t b =
        wgmma::moved(wgmma::k_major(at(offsetof(Storage<S>, k))), k_.slot * S::kKvBytes);
#pragma unroll
    for (int i = 0; i < S::kD / 16; ++i) {
      // 16 elements are 32 bytes of a 128-byte row; descriptors count 16 bytes.
      const uint64_t keys = b + (i / 4) * (S::kKeys * 8) + (i % 4) * 2;
      if constexpr (S::kQRegisters) {
        Qk::template rs<0>(s, &q_registers_[4 * i], keys, i > 0);
      } else {
        Qk::ss(s, a + (i / 4) * (S::kRows * 8) + (i % 4) * 2, keys, i > 0);
      }
    }
    wgmma::commit();
  }

  // O (+)= P V
  __device__ __forceinline__ void issue_pv(Accumulator& o, Weights& p) {
    wgmma::pin(o);
    wgmma::fence();
    const uint64_t b = wgmma::moved(wgmma::mn_major(at(offsetof(Storage<S>, v)), S::kKeys * 128),
                                    v_.slot * S::kKvBytes);
#pragma unroll
    for (int i = 0; i < S::kKeys / 16; ++i) {
      const uint64_t values = b + i * (16 * 8);
      const bool add = !weighed_.first || i > 0;
      Pv::template rs<1>(o, &p[4 * i], values, add);
    }
    wgmma::commit();
  }

  static __device__ __forceinline__ void clear(Stats& x) {
    x = Stats{{-INFINITY, -INFINITY}, {0, 0}, {-INFINITY, -INFINITY}, true};
  }
  __device__ __forceinline__ int query(const Work& w, int half) const {
    return (w.row + row_ + 8 * half) >> c_.pack;
  }

  // Forbidden pairs to -inf. Element i of a row is column 8 (i / 2) + 2 (lane % 4) + i % 2 of the
  // step; `high` and `low` count columns of each piece.
  __device__ __forceinline__ void mask(Scores& s, const Step& step, const Work& w) {
    const int first = 2 * (lane_ & 3);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int at = query(w, half) + w.shift;
      const bool tail = S::kGather && step.mask & 4;
      const int high = (tail ? step.key[1] : min(w.nk, at + c_.right)) - first;
      const int low = at + c_.left - first, sink = c_.sink - first;
#pragma unroll
      for (int i = 0; i < S::kKeys / 4; ++i) {
        const int column = 8 * (i / 2) + i % 2;
        const int key = column < S::kPiece ? step.key[0] : step.key[1] - S::kPiece;
        if (column >= high - key) s[4 * (i / 2) + 2 * half + i % 2] = -INFINITY;
      }
      if (step.mask & 2) {
#pragma unroll
        for (int i = 0; i < S::kKeys / 4; ++i) {
          const int column = 8 * (i / 2) + i % 2;
          const int key = column < S::kPiece ? step.key[0] : step.key[1] - S::kPiece;
          if (column < low - key && column >= sink - key) {
            s[4 * (i / 2) + 2 * half + i % 2] = -INFINITY;
          }
        }
      }
    }
  }

  // Score hooks: logits in log2 units, after the soft-cap and with ALiBi.
  __device__ __forceinline__ void hook(Scores& s, const Step& step, const Work& w) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int at = query(w, half) + w.shift;
      const int head = (w.head << c_.pack) + ((w.row + row_ + 8 * half) & ((1 << c_.pack) - 1));
      const float slope = c_.alibi ? c_.alibi[head] : 0;
#pragma unroll
      for (int i = 0; i < S::kKeys / 4; ++i) {
        const int column = 8 * (i / 2) + i % 2;
        const int key =
            (column < S::kPiece ? step.key[0] + column : step.key[1] + column - S::kPiece) +
            2 * (lane_ & 3);
        float& x = s[4 * (i / 2) + 2 * half + i % 2];
        x = hooked(c_, x, slope, at - key);
      }
    }
  }

  // Up to which scores the maxima stay (cuda/maxima.h).
  __device__ __forceinline__ void limit(Stats& now) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float most = fminf(quad_sum(now.sum[half]) * c_.share, kMostWeight);
      now.limit[half] = fmaf(ptx::log2(most), c_.unscale_log2, now.max[half]);
    }
  }

  // Waits for QK, which `kLater` groups of products follow, and turns scores into weights. True:
  // `o` must shrink.
  template <int kLater>
  __device__ __forceinline__ bool softmax(Scores& s, float (&shrink)[2], const Part& part) {
    constexpr float kLarge = 64;
    Stats& now = now_;
    wgmma::wait<kLater>();
    wgmma::pin(s);
    give_back_k();
    const Work& w = m_.work[part.slot];
    if constexpr (S::kHooks) hook(s, part.step, w);
    if (__any_sync(~0u, part.step.mask)) mask(s, part.step, w);
    float top[2];
    thread_max(s, top);
    float scale = c_.scale_log2;
    float m[2] = {now.max[0] * scale, now.max[1] * scale};
    const bool moved = __any_sync(~0u, top[0] > now.limit[0] || top[1] > now.limit[1] || now.rare);
    if (moved) {
      bool large = false, none = false;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        top[half] = fmaxf(top[half], __shfl_xor_sync(~0u, top[half], 1));
        top[half] = fmaxf(top[half], __shfl_xor_sync(~0u, top[half], 2));
        const float to = fmaxf(now.max[half], top[half]);
        shrink[half] = to == now.max[half] ? 1.f : ptx::exp2((now.max[half] - to) * scale);
        now.sum[half] *= shrink[half];
        now.max[half] = to;
        m[half] = to == -INFINITY ? 0.f : to * scale;
        large |= fabsf(m[half]) > kLarge;
        none |= to == -INFINITY;
      }
      // One rounding for scaling and subtracting makes the largest weight 2^(rounding of the scaled
      // maximum) instead of 1. Where that would show, the two are rounded apart.
      large = __any_sync(~0u, large);
      now.rare = large || __any_sync(~0u, none);
      if (large) {
#pragma unroll
        for (int i = 0; i < S::kKeys / 2; ++i) {
          const float x = __fmul_rn(s[i], scale), highest = m[i / 2 % 2];
          s[i] = x == highest ? 0.f : x - highest;
        }
        scale = 1;
        m[0] = m[1] = 0;
      }
    }
    exponentials(s, scale, m, now.sum);
    return moved;
  }

  __device__ __forceinline__ void rescale(Accumulator& o, const float (&shrink)[2]) {
#pragma unroll
    for (int i = 0; i < S::kD / 2; ++i) o[i] *= shrink[i / 2 % 2];
  }

  const Call& c_;
  Storage<S>& m_;
  const int group_, lane_;
  const int row_;  // of the tile: this thread's first row
  Rows<S> rows_;
  Ring<S::kQStages> q_;
  Ring<S::kKvStages> k_, v_;
  uint32_t q_registers_[S::kQRegisters ? S::kD / 4 : 1];
  int work_slot_ = 0, next_slot_ = 0, steps_ = 0, t_ = 0;  // t_: the work's next step
  Part weighed_;                                           // what the weights are of
  Stats now_;
  bool k_here_ = false, v_here_ = false;  // asked early, for the next step
};

}  // namespace regard::cuda::sm90
