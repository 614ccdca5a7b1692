// One item: a row tile against its share of key tiles. Layer: cpu (per target).
//
//   for each key tile:  pack K and V once
//     for each row panel that may read it:  S = Q K^T;  scores;  P = softmax step;  O += P V
//
// Packing and the two products are the Arithmetic's (numeric-inl.h); the rest is f32.
#if defined(REGARD_CPU_ATTEND_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef REGARD_CPU_ATTEND_INL_H_
#undef REGARD_CPU_ATTEND_INL_H_
#else
#define REGARD_CPU_ATTEND_INL_H_
#endif

#include <array>

#include "cpu/numeric-inl.h"
#include "cpu/score-inl.h"
#include "cpu/scratch.h"
#include "cpu/softmax-inl.h"

HWY_BEFORE_NAMESPACE();
namespace regard::cpu {
namespace HWY_NAMESPACE {

template <class Arithmetic>
class Attend {
 public:
  Attend(const Call& c, const RowTile& t, const Scratch& m)
      : c_(c), p_(c.w.problem), t_(t), m_(m), product_(c, t, m) {
    width_ = round_up(p_.dv, kLanes);
    for (int64_t first = 0; first < t.rows();) {
      const int rows = PanelRows(t.rows() - first);
      const Panel p(*c.w.ranges, t, first, int(std::min<int64_t>(rows, t.rows() - first)), rows);
      product_.PackQueries(p);
      first += p.live;
      padded_ = p.first + p.rows;
      panels_.push_back(p);
    }
    std::fill_n(m.acc, padded_ * width_, 0.0f);
    std::fill_n(m.sum, padded_ * kLanes, 0.0f);
    std::fill_n(m.max, padded_, c.sigmoid ? 0.0f : -kInf);
  }

  void Run(int64_t begin, int64_t end) {
    if (begin == end) return;
    const KeyStream stream(c_.w, t_);
    if (begin < end) stream.get(begin, next_);
    for (int64_t t = begin; t < end; ++t) {
      tile_ = next_;
      next_.n = 0;
      if (t + 1 < end) stream.get(t + 1, next_);
      bool packed = false;
      for (size_t n = 0; n < panels_.size(); ++n) {
        Prefetch(n);
        if (!panels_[n].reads(tile_)) continue;
        if (!packed) Pack();
        packed = true;
        Step(panels_[n]);
      }
    }
  }

  // Every row's Partial, in natural units: f(row, head, acc).
  template <class F>
  void ForRows(const F& f) const {
    for (int64_t r = 0; r < t_.rows(); ++r) {
      const float sum = SumLanes(m_.sum + r * kLanes);
      const float max = c_.sigmoid ? 0.0f : m_.max[r] * kLn2;
      f(r, PartialHead<float>{max, sum}, m_.acc + r * width_);
    }
  }

 private:
  // Asks for this panel's share of the next tile's rows: packing would wait for each of them.
  void Prefetch(size_t panel) const {
    const size_t keys = size_t(next_.n), panels = panels_.size();
    for (size_t j = keys * panel / panels; j < keys * (panel + 1) / panels; ++j)
      product_.Prefetch(next_.id[j]);
  }

  void Pack() {
    product_.PackKeys(tile_);
    finite_ = product_.PackValues(tile_);
    if (const View& kb = c_.w.key_bias)
      ReadBias(kb, Element(kb, t_.b, t_.kv_head(p_), 0), tile_, m_.key_bias);
  }

  void Step(const Panel& p) {
    // Keys [from, keys) of the tile, `vecs` vectors of them.
    const int from = p.reads_from(tile_, kPanel), keys = p.reads_until(tile_);
    const int vecs = (round_up(keys, kLanes) - from) / kLanes;
    product_.Scores(p, from, vecs);
    const bool full = tile_.n % kLanes == 0 && p.reads_all(tile_);
    const bool bare = full && c_.bare && !(c_.mask && tile_.some_forbidden);
    std::array<uint64_t, kMaxRows> forbidden = {};
    uint32_t skipped = 0;  // rows that leave this tile's values out
    int64_t h = p.first % t_.heads, i = p.first / t_.heads;
    for (int r = 0; r < p.live; ++r) {
      const int64_t row = p.first + r;
      float* all = m_.scores + r * kKeys;
      if (!bare) {
        ScoreRow(c_, tile_, c_.w.key_bias ? m_.key_bias : nullptr, t_.b, t_.h0 + h, t_.query(i, h),
                 full, from / kLanes + vecs, all);
      }
      float* s = all + from;
      if (++h == t_.heads) h = 0, ++i;
      if (!finite_) forbidden[r] = Forbidden(all, from, keys);
      if (c_.value_skip > 0) skipped |= uint32_t(Skips(s, vecs, m_.max[row])) << r;
      float *sum = m_.sum + row * kLanes, *o = m_.acc + row * width_;
      if (c_.sigmoid) {
        SigmoidRow<Arithmetic>(s, vecs, c_.shift, sum);
      } else if (vecs == kKeyVecs) {
        SoftmaxRow<Arithmetic, kKeyVecs>(s, vecs, m_.max + row, sum, o, width_);
      } else {
        SoftmaxRow<Arithmetic, 0>(s, vecs, m_.max + row, sum, o, width_);
      }
    }
    product_.Weights(p, from, vecs);
    if (skipped == (1u << p.live) - 1) return;
    for (int r = 0; skipped >> r != 0; ++r)
      if (skipped >> r & 1) product_.Forget(r), forbidden[r] = ~0ull;
    if (finite_) {
      product_.AddValues(p, from, keys, m_.acc + p.first * width_, width_);
    } else {
      for (int r = 0; r < p.live; ++r) AddValues(r, forbidden[r], m_.acc + (p.first + r) * width_);
    }
  }

  // Whether every score lies more than value_skip below the row's greatest so far.
  bool Skips(const float* s, int vecs, float max) const {
    const DF d;
    const VF least = hn::Set(d, max - c_.value_skip);
    for (int v = 0; v < vecs; ++v)  // NaN does not skip
      if (!hn::AllTrue(d, hn::Lt(hn::Load(d, s + v * kLanes), least))) return false;
    return true;
  }

  // Of the tile's keys; those before `from` and past `keys` have no score.
  static uint64_t Forbidden(const float* s, int from, int keys) {
    uint64_t bits = (keys < kKeys ? ~uint64_t{0} << keys : 0) | ((uint64_t{1} << from) - 1);
    for (int j = from; j < keys; ++j) bits |= uint64_t(s[j] == -kInf) << j;
    return bits;
  }

  // O += P V of one row where V holds infinities or NaN: a forbidden pair must not touch them.
  void AddValues(int r, uint64_t forbidden, float* acc) const {
    const DF d;
    for (int j = 0; j < tile_.n; ++j) {
      if (forbidden >> j & 1) continue;
      const VF w = hn::Set(d, product_.Weight(r, j));
      for (int64_t c = 0; c < width_; c += kLanes)
        hn::Store(hn::MulAdd(w, product_.Value(j, c), hn::Load(d, acc + c)), d, acc + c);
    }
  }

  const Call& c_;
  const Problem& p_;
  const RowTile& t_;
  const Scratch& m_;
  Arithmetic product_;
  int64_t width_ = 0, padded_ = 0;
  std::vector<Panel> panels_;
  KeyTile tile_, next_;
  bool finite_ = true;
};

}  // namespace HWY_NAMESPACE
}  // namespace regard::cpu
HWY_AFTER_NAMESPACE();
#endif
