// Partial: what attention over SOME of the keys leaves behind for one query row. Layer: algebra.
//
//   max = max_j s_j      sum = sum_j exp(s_j - max)      acc = sum_j exp(s_j - max) v_j
//
// merge() is associative and commutative with identity {-inf, 0, 0}; split keys, branches that
// share a softmax, rings and paging are all this one operation (FlashAttention-2, arXiv
// 2307.08691, 3.1).
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>

#if defined(__CUDACC__)
#define REGARD_HD __host__ __device__
#else
#define REGARD_HD
#endif

namespace regard {

// The scalars of a Partial; `acc` lives beside it as dv numbers.
template <class T>
struct PartialHead {
  T max = -std::numeric_limits<T>::infinity();
  T sum = 0;
};

// How much two Partials must be scaled to share a maximum.
template <class T>
struct MergeScales {
  T max, a, b;
};

template <class T>
REGARD_HD inline MergeScales<T> merge_scales(T max_a, T max_b) {
  const T m = max_a > max_b ? max_a : max_b;
  if (m == -std::numeric_limits<T>::infinity()) return {m, T(0), T(0)};  // both empty
  // An infinite maximum meets itself as exp(inf - inf): say 1, so that +inf logits stay defined.
  return {m, max_a == m ? T(1) : std::exp(max_a - m), max_b == m ? T(1) : std::exp(max_b - m)};
}

// a <- merge(a, b)
template <class T>
REGARD_HD inline void merge(PartialHead<T>& a, T* acc_a, const PartialHead<T>& b, const T* acc_b,
                            int64_t dv) {
  const MergeScales<T> s = merge_scales(a.max, b.max);
  a.max = s.max;
  a.sum = a.sum * s.a + b.sum * s.b;
  for (int64_t c = 0; c < dv; ++c) acc_a[c] = acc_a[c] * s.a + acc_b[c] * s.b;
}

// An attention sink: one more logit, which has no value (-inf: none). Returns the factor that acc
// needs.
template <class T>
REGARD_HD inline T add_sink(PartialHead<T>& p, T logit) {
  if (logit == -std::numeric_limits<T>::infinity()) return T(1);
  const MergeScales<T> s = merge_scales(p.max, logit);
  p = {s.max, p.sum * s.a + s.b};
  return s.a;
}

// Natural-log sum of exponentials; -inf for an empty row.
template <class T>
REGARD_HD inline T lse(const PartialHead<T>& p) {
  return p.sum == T(0) ? -std::numeric_limits<T>::infinity() : p.max + std::log(p.sum);
}

}  // namespace regard
