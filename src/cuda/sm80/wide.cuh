// Many rows, plain scores: up to 32 rows a warp, so that a fragment of K or V feeds two products.
//
// K and V have a place each: values are copied under QK, the next keys under PV. The weights of 16
// keys are made between the products of the 16 before. Layer: cuda.
#pragma once
#include "cuda/maxima.h"
#include "cuda/sm80/forward.cuh"

namespace regard::cuda::sm80 {

template <class S>
struct WideBlock : Block<S> {
  using Base = Block<S>;
  using T = typename S::T;
  using Reads = typename Base::Reads;
  using Span = typename Base::Span;
  using Base::acc, Base::item, Base::lane, Base::max, Base::p, Base::s, Base::sum, Base::tiles;
  static constexpr int kM = S::kM, kR = Base::kR, kNn = Base::kNn, kDn = Base::kDn;
  static constexpr int kAhead = 2;  // fragments on their way
  static_assert(S::kWn == 1 && S::kWd == 1 && S::kStages == 1);

  // max: in units of log2 e. limit: the score (in them too) beyond which the maximum follows; -inf:
  // no score so far, and max is 0.
  float limit[kR];
  bool large = false;  // of the warp: some maximum is beyond kLarge

  __device__ __forceinline__ WideBlock(const Params& params, const Item& i, char* memory)
      : Base(params, i, memory) {
#pragma unroll
    for (int r = 0; r < kR; ++r) max[r] = 0, limit[r] = -kInf;
  }

  __device__ __forceinline__ void run(const int4& asked) {
    const int first = item.begin, end = item.end;
    T* const keys = this->keys_of(0);
    T* const values = this->values_of(0);
    this->load_queries();
    if (first < end) load_keys(first);
    copy_commit();
    static_assert(S::kRows <= S::kThreads);
    if (this->thread < S::kRows) this->row_info[this->thread] = asked;
    this->clear();
#pragma unroll 1
    for (int t = first; t < end; ++t) {
      // Addresses made of it are computed here, not ahead of the loop, where they take registers.
      asm volatile("" : "+r"(lane));
      copy_wait<0>();
      __syncthreads();  // keys t are here, and nobody reads values t - 1 any more
      if (t == first) this->find_read_by_all();
      load_values(t);
      copy_commit();
      const Span span = tiles.span(t, 0, lane);
      const Reads reads = this->what_is_read(span);
      if (reads != Reads::none) multiply_queries(keys);
      copy_wait<0>();
      __syncthreads();  // values t are here, and nobody reads keys t any more
      if (t + 1 < end) load_keys(t + 1);
      copy_commit();
      if (reads != Reads::none) {
        bool poisoned = false;
        if (reads == Reads::some) {
          this->forbid(span);
          poisoned = this->any_forbidden() && this->values_not_finite(values);
        }
        add_values(values, poisoned);
      }
    }
    copy_wait<0>();
    this->add_sums();
#pragma unroll
    for (int r = 0; r < kR; ++r)
      if (limit[r] == -kInf) max[r] = -kInf;
  }

  __device__ __forceinline__ void load_keys(int t) {
    tiles.template copy<S::kDk, false>(t, this->keys_of(0), this->k_from, p.k.token, p.dk);
  }
  __device__ __forceinline__ void load_values(int t) {
    tiles.template copy<S::kDv, true>(t, this->values_of(0), this->v_from, p.v.token, p.dv);
  }

  // 16 n channels further in a row, in which an exclusive or has mixed eights of chunks.
  static __device__ __forceinline__ uint32_t along(uint32_t at, int n) {
    return (at ^ (32 * n & 127)) + (32 * n & ~127);
  }

  // S = Q K^T.
  __device__ __forceinline__ void multiply_queries(const T* keys) {
    constexpr int kGroups = kNn / 2, kSteps = S::kDk / 16, kUnits = kSteps * kGroups;
    const uint32_t q_at =
        shared_address(this->q) + swizzled<S::kDk>(this->wm * 16 * kM + lane % 16, lane / 16);
    const uint32_t k_at =
        shared_address(keys) + swizzled<S::kDk>(lane % 8 + lane / 16 * 8, lane / 8 % 2);
    uint32_t a[2][kM][4], b[kAhead + 1][4];
    const auto load_a = [&](int k) {
#pragma unroll
      for (int m = 0; m < kM; ++m) load_matrix(a[k % 2][m], along(q_at, k) + 32 * S::kDk * m);
    };
    const auto load_b = [&](int u) {
      load_matrix(b[u % (kAhead + 1)], along(k_at, u / kGroups) + 32 * S::kDk * (u % kGroups));
    };
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (auto& x : s[m]) x[0] = x[1] = x[2] = x[3] = 0;
    load_a(0);
#pragma unroll
    for (int u = 0; u < kAhead; ++u) load_b(u);
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      const int k = u / kGroups, n = u % kGroups;
      if (u + kAhead < kUnits) load_b(u + kAhead);
      if (n == 0 && k + 1 < kSteps) load_a(k + 1);
      const uint32_t(&x)[4] = b[u % (kAhead + 1)];
#pragma unroll
      for (int m = 0; m < kM; ++m) {
        multiply<T>(s[m][2 * n], a[k % 2][m], x[0], x[1]);
        multiply<T>(s[m][2 * n + 1], a[k % 2][m], x[2], x[3]);
      }
    }
  }

  // Scores become weights, O += P V.
  __device__ __forceinline__ void add_values(const T* values, bool poisoned) {
    float top[kR];
#pragma unroll
    for (float& x : top) x = -kInf;
    this->each([&](float& x, int r, int) { top[r] = fmaxf(top[r], x); });
    bool follows = large;
#pragma unroll
    for (int r = 0; r < kR; ++r) follows |= __fmul_rn(top[r], p.c) > limit[r];
    follows = __any_sync(~0u, follows);
    if (follows) move(top);
    if (large || poisoned) {
      round_apart();
      poisoned ? this->add_values_one_by_one(values) : this->multiply_values(values);
    } else {
      multiply_weights(values);
    }
    if (follows) set_limits();
  }

  // The maxima follow, and the sums so far shrink.
  __device__ __forceinline__ void move(float (&top)[kR]) {
    // The fast way scales and subtracts in one rounding, so that the largest weight is 2^(rounding
    // of the scaled maximum) instead of 1: below this, within 2^-18 of it.
    constexpr float kLarge = 64;
    bool shrinks = false;
    large = false;
#pragma unroll
    for (int r = 0; r < kR; ++r) {
      float& x = top[r];
      x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
      x = fmaxf(x, __shfl_xor_sync(~0u, x, 2));
      const bool first = limit[r] == -kInf;
      const float was = first ? -kInf : max[r], to = fmaxf(was, __fmul_rn(x, p.c));
      if (to > -kInf) max[r] = to, limit[r] = to;
      x = first || to == was ? 1.0f : exp2_fast(was - to);
      sum[r] *= x;
      shrinks |= x != 1;
      large |= fabsf(max[r]) > kLarge;
    }
    large = __any_sync(~0u, large);
    if (!__any_sync(~0u, shrinks)) return;
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int d = 0; d < kDn; ++d)
#pragma unroll
        for (int e = 0; e < 4; ++e) acc[m][d][e] *= top[2 * m + e / 2];
  }

  // Up to which scores the maxima stay (cuda/maxima.h).
  __device__ __forceinline__ void set_limits() {
    const float share = p.out_type == Type::f32 ? kFloatShare : kRoundedShare;
#pragma unroll
    for (int r = 0; r < kR; ++r) {
      float x = sum[r];
      x += __shfl_xor_sync(~0u, x, 1);
      x += __shfl_xor_sync(~0u, x, 2);
      if (limit[r] > -kInf) limit[r] = max[r] + __log2f(fminf(x * share, kMostWeight));
    }
  }

  // Weights of large scores, or of forbidden ones beside values that are not finite: those are
  // minus zero, which add_values_one_by_one leaves out.
  __device__ __forceinline__ void round_apart() {
    this->each([&](float& x, int r, int) {
      const float y = __fmul_rn(x, p.c);
      const float w = y == max[r] ? 1.0f : exp2_fast(y - max[r]);
      const bool forbidden = x == -kInf;
      x = forbidden ? -0.0f : w;
      sum[r] += forbidden ? 0.0f : w;
    });
  }

  // O += P V, and the weights of the next 16 keys between the products.
  __device__ __forceinline__ void multiply_weights(const T* values) {
    constexpr int kGroups = kDn / 2, kSteps = kNn / 2, kUnits = kSteps * kGroups;
    constexpr int kWeights = 8 * kM;  // of 16 keys
    const uint32_t v_at = shared_address(values) + swizzled<S::kDv>(lane % 16, lane / 16);
    const float c = p.c;
    const auto weigh = [&](int k, int i) {
      const int m = i / 8, e = i % 4, r = 2 * m + e / 2;
      float& x = s[m][2 * k + i / 4 % 2][e];
      x = exp2_fast(fmaf(x, c, -max[r]));
      sum[r] += x;
    };
    uint32_t b[kAhead + 1][4];
    const auto load_b = [&](int u) {
      load_matrix_transposed(b[u % (kAhead + 1)],
                             along(v_at, u % kGroups) + 32 * S::kDv * (u / kGroups));
    };
#pragma unroll
    for (int u = 0; u < kAhead; ++u) load_b(u);
#pragma unroll
    for (int i = 0; i < kWeights; ++i) weigh(0, i);
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      uint32_t a[kM][4];
#pragma unroll
      for (int m = 0; m < kM; ++m) this->load_weights(a[m], m, k);
#pragma unroll
      for (int d = 0; d < kGroups; ++d) {
        const int u = k * kGroups + d;
        if (u + kAhead < kUnits) load_b(u + kAhead);
        const uint32_t(&x)[4] = b[u % (kAhead + 1)];
#pragma unroll
        for (int m = 0; m < kM; ++m) {
          multiply<T>(acc[m][2 * d], a[m], x[0], x[1]);
          multiply<T>(acc[m][2 * d + 1], a[m], x[2], x[3]);
        }
        if (k + 1 < kSteps)
#pragma unroll
          for (int i = d * kWeights / kGroups; i < (d + 1) * kWeights / kGroups; ++i)
            weigh(k + 1, i);
      }
    }
  }
};

}  // namespace regard::cuda::sm80
