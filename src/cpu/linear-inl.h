// Linear attention: per block of keys a state H = sum_j phi(k_j) [v_j, 1]^T; a tile of queries adds
// the states of the blocks that all its rows read whole, and a row is phi(q)^T H; the rest goes key
// by key. Layer: cpu (per target).
//
// Features of random directions are kept as 2^(e - shift), the shift the greatest exponent of each
// direction in the block: nothing overflows, and what underflows is 2^-126 of its direction's most.
#if defined(REGARD_CPU_LINEAR_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef REGARD_CPU_LINEAR_INL_H_
#undef REGARD_CPU_LINEAR_INL_H_
#else
#define REGARD_CPU_LINEAR_INL_H_
#endif

#include <cmath>
#include <cstring>
#include <vector>

#include "core/parallel.h"
#include "cpu/finish.h"
#include "cpu/linear_keys.h"
#include "cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace regard::cpu {
namespace HWY_NAMESPACE {

constexpr float kSmallest = 0x1p-126f;
constexpr float kLeast = -1e30f;  // an exponent below all others, with which one can still compute

// phi of one row, or its exponents in base 2: of random features and of a softmax, whose products
// may be too small for a float while their ratios are not.
class FeatureMap {
 public:
  explicit FeatureMap(const Work& w) : kind_(w.branch->weight.kind), dk_(w.problem.dk) {
    const View& d = w.branch->weight.directions.view;
    count_ = d ? d.size[2] : dk_;
    padded_ = round_up(count_, kLanes);
    if (!d) return;
    factor_ = std::sqrt(w.problem.scale) * kLog2e;
    half_ = w.problem.scale * kLog2e / 2;
    offset_ = -std::log2(float(count_)) / 2;
    lines_.assign(size_t(dk_ * padded_), 0.0f);
    std::vector<float> row(static_cast<size_t>(dk_));
    for (int64_t r = 0; r < count_; ++r) {
      read_row(d, 0, 0, r, row.data());
      for (int64_t c = 0; c < dk_; ++c) lines_[c * padded_ + r] = row[c] * factor_;
    }
  }

  bool exponents() const { return !lines_.empty() || kind_ == WeightKind::softmax; }
  int64_t padded() const { return padded_; }

  // x: [dk]; out: [padded], 0 (exponents: kLeast) past the features.
  void Run(const float* x, float* out) const {
    if (!lines_.empty()) return Exponents(x, out);
    if (kind_ == WeightKind::softmax) return Softmax(x, out);
    std::fill_n(out, padded_, 0.0f);
    for (int64_t c = 0; c < dk_; ++c) {
      if (kind_ == WeightKind::elu) {
        out[c] = x[c] > 0 ? x[c] + 1 : std::exp(x[c]);
      } else {
        out[c] = x[c] < 0 ? 0 : x[c];  // NaN stays
      }
    }
  }

 private:
  void Softmax(const float* x, float* out) const {
    const float top = *std::max_element(x, x + dk_);
    double sum = 0;
    for (int64_t c = 0; c < dk_; ++c) sum += std::exp(double(x[c] - top));
    const float all = float(std::log2(sum));
    for (int64_t c = 0; c < dk_; ++c) out[c] = std::max((x[c] - top) * kLog2e - all, kLeast);
    for (int64_t c = dk_; c < padded_; ++c) out[c] = kLeast;
  }

  void Exponents(const float* x, float* out) const {
    const DF d;
    float squares = 0;
    for (int64_t c = 0; c < dk_; ++c) squares += x[c] * x[c];
    const VF start = hn::Set(d, offset_ - half_ * squares);
    for (int64_t r = 0; r < padded_; r += kLanes) {
      VF sum = hn::Zero(d);
      for (int64_t c = 0; c < dk_; ++c)
        sum = hn::MulAdd(hn::Set(d, x[c]), hn::LoadU(d, &lines_[c * padded_ + r]), sum);
      hn::StoreU(hn::Add(sum, start), d, out + r);
    }
    for (int64_t r = count_; r < padded_; ++r) out[r] = kLeast;
  }

  WeightKind kind_;
  int64_t dk_, count_ = 0, padded_ = 0;
  float factor_ = 0, half_ = 0, offset_ = 0;
  std::vector<float> lines_;  // [dk][padded]
};

// y[width] += a x[width]
HWY_INLINE void AddScaled(float a, const float* x, int64_t width, float* y) {
  const DF d;
  const VF factor = hn::Set(d, a);
  for (int64_t c = 0; c < width; c += kLanes)
    hn::StoreU(hn::MulAdd(factor, hn::LoadU(d, x + c), hn::LoadU(d, y + c)), d, y + c);
}

HWY_INLINE float Dot(const float* a, const float* b, int64_t n) {
  const DF d;
  VF sum = hn::Zero(d);
  for (int64_t c = 0; c < n; c += kLanes)
    sum = hn::MulAdd(hn::LoadU(d, a + c), hn::LoadU(d, b + c), sum);
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

// out[r] = 2^(e[r] + shift[r] - top), top the greatest of the sums; returns top.
inline float Weigh(const float* e, const float* shift, int64_t n, float* out) {
  const DF d;
  float top = kLeast;
  for (int64_t r = 0; r < n; ++r) top = std::max(top, e[r] + shift[r]);
  for (int64_t r = 0; r < n; r += kLanes) {
    const VF x = hn::Add(hn::LoadU(d, e + r), hn::LoadU(d, shift + r));
    hn::StoreU(Exp2(hn::Sub(x, hn::Set(d, top))), d, out + r);
  }
  return top;
}

// Sums of states: one row of `width` numbers a feature, with the feature's shift.
struct State {
  float* sum;    // [features][width]
  float* shift;  // [features], exponents only
};

// a += b
inline void AddState(State a, State b, bool exponents, int64_t features, int64_t width) {
  for (int64_t r = 0; r < features; ++r) {
    float* to = a.sum + r * width;
    float factor = 1;
    if (exponents) {
      if (b.shift[r] > a.shift[r]) {
        const float scale = Exp2(a.shift[r] - b.shift[r]);
        for (int64_t c = 0; c < width; ++c) to[c] *= scale;
        a.shift[r] = b.shift[r];
      }
      factor = Exp2(b.shift[r] - a.shift[r]);
    }
    AddScaled(factor, b.sum + r * width, width, to);
  }
}

// Features, values and states of one KV head.
class LinearHead {
 public:
  LinearHead(const Work& w, const FeatureMap& map, int64_t b, int64_t hk)
      : w_(w), map_(map), b_(b), hk_(hk), block_(state_block(*w.branch)) {
    const Problem& p = w.problem;
    width_ = round_up(p.dv + 1, kLanes);
    features_ = map.padded();
    phi_.resize(size_t(p.nk * features_));
    value_.assign(size_t(p.nk * width_), 0.0f);
    for (int64_t n = (p.nk + block_ - 1) / block_;; n = n / kFan) {
      Level level;
      level.count = n;
      level.sum.assign(size_t(n * features_ * width_), 0.0f);
      level.shift.assign(size_t(n * features_), kLeast);
      levels_.push_back(std::move(level));
      if (n < kFan || levels_.size() == 3) break;
    }
  }

  static constexpr int64_t kFan = 8;  // states of a level in one of the next
  int64_t blocks() const { return levels_[0].count; }
  int64_t width() const { return width_; }
  int64_t block() const { return block_; }
  const float* phi(int64_t j) const { return &phi_[j * features_]; }
  const float* value(int64_t j) const { return &value_[j * width_]; }
  State state(size_t level, int64_t n) {
    return {&levels_[level].sum[n * features_ * width_], &levels_[level].shift[n * features_]};
  }
  size_t levels() const { return levels_.size(); }
  int64_t count(size_t level) const { return levels_[level].count; }

  void FillBlock(int64_t c) {
    const Problem& p = w_.problem;
    const int64_t first = c * block_, last = std::min(first + block_, p.nk);
    const State s = state(0, c);
    std::vector<float> row(static_cast<size_t>(std::max(p.dk, p.dv) + 32));
    for (int64_t j = first; j < last; ++j) {
      read_row(w_.k, b_, hk_, j, row.data());
      float* e = &phi_[j * features_];
      map_.Run(row.data(), e);
      for (int64_t r = 0; map_.exponents() && r < features_; ++r)
        if (e[r] > s.shift[r]) s.shift[r] = e[r];  // NaN is not
      float* v = &value_[j * width_];
      read_row(w_.v, b_, hk_, j, v);
      v[p.dv] = 1;
    }
    const DF d;
    for (int64_t j = first; map_.exponents() && j < last; ++j)
      for (int64_t r = 0; r < features_; r += kLanes) {
        float* e = &phi_[j * features_ + r];
        hn::StoreU(Exp2(hn::Sub(hn::LoadU(d, e), hn::LoadU(d, s.shift + r))), d, e);
      }
    for (int64_t r = 0; r < features_; ++r)
      for (int64_t j = first; j < last; ++j)
        AddScaled(phi_[j * features_ + r], value(j), width_, s.sum + r * width_);
  }

  void FillLevel(size_t level, int64_t n) {
    for (int64_t c = n * kFan; c < (n + 1) * kFan; ++c)
      AddState(state(level, n), state(level - 1, c), map_.exponents(), features_, width_);
  }

 private:
  struct Level {
    int64_t count = 0;
    std::vector<float> sum, shift;
  };
  const Work& w_;
  const FeatureMap& map_;
  int64_t b_, hk_, block_, width_ = 0, features_ = 0;
  std::vector<float> phi_, value_;  // [nk][features], [nk][width]: v, then 1
  std::vector<Level> levels_;
};

// One tile of query rows.
class LinearRows {
 public:
  LinearRows(const Call& c, const FeatureMap& map, LinearHead& head, const LinearKeys& keys)
      : c_(c), map_(map), head_(head), keys_(keys), features_(map.padded()) {}

  void Run(const LinearTile& t) {
    const Problem& p = c_.w.problem;
    std::vector<float> sum(size_t(features_ * head_.width()), 0.0f);
    std::vector<float> shift(size_t(features_), kLeast);
    const State total{sum.data(), shift.data()};
    AddWhole(t.whole, total);
    std::vector<float> x(static_cast<size_t>(p.dk + 32)), e(static_cast<size_t>(features_));
    std::vector<float> acc(static_cast<size_t>(head_.width()));
    for (int64_t i = t.i0; i < t.i1; ++i) {
      read_row(c_.w.q, t.b, t.h, i, x.data());
      map_.Run(x.data(), e.data());
      std::fill(acc.begin(), acc.end(), 0.0f);
      PartialHead<float> part;
      if (!t.whole.empty()) part = FromState(total, e.data(), acc.data());
      FromSingles(t, i, e.data(), &part, acc.data());
      finish_row(c_, t.b, t.h, i, part, acc.data());
    }
  }

 private:
  // The largest aligned groups first: a run of n blocks costs about n / 64 + 14 additions.
  void AddWhole(const std::vector<int64_t>& blocks, State total) {
    for (size_t n = 0; n < blocks.size();) {
      size_t level = head_.levels() - 1;
      for (int64_t size = Size(level); level > 0; size = Size(--level)) {
        const bool fits = blocks[n] % size == 0 && n + size_t(size) <= blocks.size() &&
                          blocks[n + size_t(size) - 1] == blocks[n] + size - 1;
        if (fits && blocks[n] / size < head_.count(level)) break;
      }
      AddState(total, head_.state(level, blocks[n] / Size(level)), map_.exponents(), features_,
               head_.width());
      n += size_t(Size(level));
    }
  }
  static int64_t Size(size_t level) { return level == 0 ? 1 : level == 1 ? 8 : 64; }

  // e: phi(q), or its exponents. Weights of the features, on which a scale 2^(result) is left.
  float Factors(const float* e, const float* shift, float* out) const {
    if (map_.exponents()) return Weigh(e, shift, features_, out);
    std::memcpy(out, e, size_t(features_) * sizeof(float));
    return 0;
  }

  PartialHead<float> FromState(const State& s, const float* e, float* acc) {
    std::vector<float> f(static_cast<size_t>(features_));
    const float top = Factors(e, s.shift, f.data());
    for (int64_t r = 0; r < features_; ++r)
      AddScaled(f[r], s.sum + r * head_.width(), head_.width(), acc);
    return {top * kLn2, acc[c_.w.problem.dv]};
  }

  void FromSingles(const LinearTile& t, int64_t i, const float* e, PartialHead<float>* part,
                   float* acc) {
    const int64_t dv = c_.w.problem.dv, width = head_.width();
    std::vector<float> f(static_cast<size_t>(features_)), own(static_cast<size_t>(width));
    for (size_t n = 0; n < t.singles.size();) {
      const int64_t block = t.singles[n] / head_.block();
      bool any = false;
      float top = 0;
      for (; n < t.singles.size() && t.singles[n] / head_.block() == block; ++n) {
        const int64_t j = t.singles[n];
        if (!keys_.reads(t.b, t.h, i, j)) continue;
        if (!any) {
          top = Factors(e, head_.state(0, block).shift, f.data());
          std::fill(own.begin(), own.end(), 0.0f);
        }
        any = true;
        // Below 2^-126 of the block's largest a weight counts as 0, as it does after a softmax.
        if (const float w = Dot(f.data(), head_.phi(j), features_); !(w < kSmallest))
          AddScaled(w, head_.value(j), width, own.data());
      }
      if (!any || own[dv] == 0) continue;
      // Sums of 1: beside another part's maximum a small sum could underflow.
      const float sum = own[dv];
      for (float& x : own) x /= sum;
      merge(*part, acc, PartialHead<float>{top * kLn2 + std::log(sum), own[dv]}, own.data(), dv);
    }
  }

  const Call& c_;
  const FeatureMap& map_;
  LinearHead& head_;
  const LinearKeys& keys_;
  int64_t features_;
};

void RunLinear(const Work& w) {
  const Problem& p = w.problem;
  const Call call(w);
  const FeatureMap map(w);
  const LinearKeys keys(w);
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t hk = 0; hk < p.kv_heads; ++hk) {
      LinearHead head(w, map, b, hk);
      parallel_for(head.blocks(), w.threads, [&](int64_t c, int) { head.FillBlock(c); });
      for (size_t level = 1; level < head.levels(); ++level)
        parallel_for(head.count(level), w.threads,
                     [&](int64_t n, int) { head.FillLevel(level, n); });
      parallel_for(p.group() * keys.tiles(), w.threads, [&](int64_t n, int) {
        const int64_t h = hk * p.group() + n / keys.tiles();
        LinearRows(call, map, head, keys).Run(keys.tile(b, h, n % keys.tiles()));
      });
    }
}

}  // namespace HWY_NAMESPACE
}  // namespace regard::cpu
HWY_AFTER_NAMESPACE();
#endif
