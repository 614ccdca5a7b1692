// Few query rows against rows of the cache as they lie in memory: nothing is packed, every vector
// of K or V is loaded once and serves all rows of a block. Layer: cpu (per target).
//
//   DotRows:  s[r][j] = q_r . k_j, sums of lanes taken kLanes at a time
//   AddRows:  o[r] += sum_j p[r][j] v_j
#if defined(REGARD_CPU_STREAM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef REGARD_CPU_STREAM_INL_H_
#undef REGARD_CPU_STREAM_INL_H_
#else
#define REGARD_CPU_STREAM_INL_H_
#endif

#include "cpu/decode-inl.h"

HWY_BEFORE_NAMESPACE();
namespace regard::cpu {
namespace HWY_NAMESPACE {

// Rows that share each loaded vector: with 4 keys (AVX-512) that makes 16 chains of FMAs.
inline constexpr int kBlockRows = std::min(4, kLanes);

// Lane t of the result is the sum of x[t]'s lanes: log2(kLanes) rounds of adding neighbours, each
// halving the number of vectors.
#if HWY_TARGET == HWY_SCALAR
HWY_INLINE VF SumEach(const VF (&x)[kLanes]) { return x[0]; }
#else
// Lane i of every 128-bit block is the sum of x[i]'s block.
HWY_INLINE VF SumBlocks(VF x0, VF x1, VF x2, VF x3) {
  const DF d;
  const hn::Repartition<double, DF> dd;
  const VF ab = hn::Add(hn::InterleaveLower(d, x0, x1), hn::InterleaveUpper(d, x0, x1));
  const VF ce = hn::Add(hn::InterleaveLower(d, x2, x3), hn::InterleaveUpper(d, x2, x3));
  const auto low = hn::InterleaveLower(dd, hn::BitCast(dd, ab), hn::BitCast(dd, ce));
  const auto high = hn::InterleaveUpper(dd, hn::BitCast(dd, ab), hn::BitCast(dd, ce));
  return hn::Add(hn::BitCast(d, low), hn::BitCast(d, high));
}

template <int N>
HWY_INLINE VF SumEach(const VF (&x)[N]) {
  const DF d;
  VF four[N / 4];
  REGARD_UNROLL
  for (int n = 0; n < N / 4; ++n) {
    // Blocks meet below in the order 0, 2, 1, 3.
    const int t = N == 16 ? (n == 1 ? 8 : n == 2 ? 4 : n * 4) : n * 4;
    four[n] = SumBlocks(x[t], x[t + 1], x[t + 2], x[t + 3]);
  }
  if constexpr (N == 4) {
    return four[0];
  } else if constexpr (N == 8) {
    return hn::Add(hn::ConcatLowerLower(d, four[1], four[0]),
                   hn::ConcatUpperUpper(d, four[1], four[0]));
  } else {
    static_assert(N == 16);
    // Halves: blocks (A, A, B, B) and (C, C, D, D), then neighbours: (A, C, B, D).
    const VF ab = hn::Add(hn::ConcatLowerLower(d, four[1], four[0]),
                          hn::ConcatUpperUpper(d, four[1], four[0]));
    const VF ce = hn::Add(hn::ConcatLowerLower(d, four[3], four[2]),
                          hn::ConcatUpperUpper(d, four[3], four[2]));
    return hn::Add(hn::OddEvenBlocks(ce, ab), hn::SwapAdjacentBlocks(hn::OddEvenBlocks(ab, ce)));
  }
}
#endif

// Lines of the rows that are read a while later, fetched into the second cache: the first is too
// small to hold them until they are needed.
struct Ahead {
  const char* const* row = nullptr;  // row[j]: what to fetch while key j is read; null: nothing
  int lines = 0;                     // 64 bytes each
  HWY_INLINE void Fetch(int j, int line) const { __builtin_prefetch(row[j] + line * 64, 0, 2); }
};

// Keys of a tile: pointers to `keys` rows; up to the next multiple of kLanes they repeat the last.
// q: [R][vecs vectors], s: [R][kKeys]. One or two query rows walk K key by key, as memory lies: the
// hardware's own prefetcher follows that, and the keys behind are under way by then.
template <DType T, int R>
HWY_NOINLINE void DotRows(const float* HWY_RESTRICT q, int vecs, const char* const* row, int keys,
                          const Ahead& next, float* HWY_RESTRICT s) {
  const DF d;
  const std::integral_constant<DType, T> type;
  constexpr int64_t kStep = kLanes * (T == DType::f32 ? 4 : 2);
  constexpr int kAtOnce = kLanes / (R == 3 ? 4 : R);            // keys a vector of sums
  constexpr int kTogether = std::min(kAtOnce, R <= 2 ? 2 : 4);  // keys read side by side
  for (int j = 0; j < keys; j += kAtOnce) {
    VF acc[kLanes];
    REGARD_UNROLL
    for (int t = 0; t < kLanes; ++t) acc[t] = hn::Zero(d);
    REGARD_UNROLL
    for (int first = 0; first < kAtOnce; first += kTogether) {
      for (int c = 0; c < vecs; ++c) {
        if (c < next.lines) {
          REGARD_UNROLL
          for (int g = 0; g < kTogether; ++g) next.Fetch(j + first + g, c);
        }
        VF x[kTogether];
        REGARD_UNROLL
        for (int g = 0; g < kTogether; ++g) x[g] = Widen(row[j + first + g] + c * kStep, type);
        REGARD_UNROLL
        for (int r = 0; r < R; ++r) {
          const VF w = hn::Load(d, q + (r * vecs + c) * kLanes);
          REGARD_UNROLL
          for (int g = 0; g < kTogether; ++g) {
            VF& sum = acc[r * kAtOnce + first + g];
            sum = hn::MulAdd(x[g], w, sum);
          }
        }
      }
    }
    alignas(64) float sums[kLanes];
    hn::Store(SumEach(acc), d, sums);
    REGARD_UNROLL
    for (int r = 0; r < R; ++r) std::memcpy(s + r * kKeys + j, sums + r * kAtOnce, kAtOnce * 4);
  }
}

// C vectors of columns, `skip` bytes into each row of V, and as many bytes of the rows to come.
template <DType T, int R, int C>
HWY_INLINE void AddBlock(const float* HWY_RESTRICT p, const char* const* row, int64_t skip,
                         int keys, const Ahead& next, float* HWY_RESTRICT o, int64_t width) {
  const DF d;
  const std::integral_constant<DType, T> type;
  constexpr int64_t kStep = kLanes * (T == DType::f32 ? 4 : 2);
  VF acc[R][C];
  REGARD_UNROLL
  for (int r = 0; r < R; ++r) {
    REGARD_UNROLL
    for (int c = 0; c < C; ++c) acc[r][c] = hn::Load(d, o + r * width + c * kLanes);
  }
  const int first_line = int((skip + 63) / 64);
  const int last_line = next.row ? std::min<int>(next.lines, (skip + C * kStep + 63) / 64) : 0;
  for (int j = 0; j < keys; ++j) {
    for (int line = first_line; line < last_line; ++line) next.Fetch(j, line);
    VF w[R];
    REGARD_UNROLL
    for (int r = 0; r < R; ++r) w[r] = hn::Set(d, p[r * kKeys + j]);
    REGARD_UNROLL
    for (int c = 0; c < C; ++c) {
      const VF x = Widen(row[j] + skip + c * kStep, type);
      REGARD_UNROLL
      for (int r = 0; r < R; ++r) acc[r][c] = hn::MulAdd(x, w[r], acc[r][c]);
    }
  }
  REGARD_UNROLL
  for (int r = 0; r < R; ++r) {
    REGARD_UNROLL
    for (int c = 0; c < C; ++c) hn::Store(acc[r][c], d, o + r * width + c * kLanes);
  }
}

// Vectors of columns that one pass over V takes: R * C accumulators, a column and R weights are 21
// of 32 registers, 13 of 16.
constexpr int PassVectors(int rows) {
  return (kLanes == 16 ? 16 : 8) / (rows == 3 ? 4 : std::min(rows, 4));
}

// Vectors [c, vecs) of columns, C at once as long as they last, then half as many.
template <DType T, int R, int C>
HWY_INLINE void AddPasses(const float* p, const char* const* row, int c, int vecs, int keys,
                          const Ahead& next, float* o, int64_t width) {
  constexpr int64_t kStep = kLanes * (T == DType::f32 ? 4 : 2);
  for (; c + C <= vecs; c += C)
    AddBlock<T, R, C>(p, row, c * kStep, keys, next, o + c * kLanes, width);
  if constexpr (C > 1) AddPasses<T, R, C / 2>(p, row, c, vecs, keys, next, o, width);
}

// p: [R][kKeys]; o: [R][width].
template <DType T, int R>
HWY_NOINLINE void AddRows(const float* p, const char* const* row, int keys, const Ahead& next,
                          float* o, int64_t width) {
  AddPasses<T, R, PassVectors(R)>(p, row, 0, int(width / kLanes), keys, next, o, width);
}

// Calls f(rows as a constant, first row) for blocks of nearly equal size.
template <class F>
HWY_INLINE void ForRowBlocks(int rows, const F& f) {
  for (int first = 0; first < rows;) {
    const int blocks = (rows - first + kBlockRows - 1) / kBlockRows;
    const int n = (rows - first + blocks - 1) / blocks;
    if constexpr (kBlockRows == 4) {
      if (n == 4) f(std::integral_constant<int, 4>(), first);
      if (n == 3) f(std::integral_constant<int, 3>(), first);
      if (n == 2) f(std::integral_constant<int, 2>(), first);
    }
    if (n == 1) f(std::integral_constant<int, 1>(), first);
    first += n;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace regard::cpu
HWY_AFTER_NAMESPACE();
#endif
