// One item of few query rows: as Attend, but K and V are read where they lie. Layer: cpu (per
// target).
//
//   for each key tile:  S = Q K^T;  scores;  P = softmax step;  O += P V
//
// A NaN or infinity in V would reach rows that may not read its key (0 * inf). Rather than look at
// every element, the item is trusted until its sums or accumulators are not finite: clean() is then
// false and Attend, which looks, has to run instead.
#if defined(REGARD_CPU_FEW_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef REGARD_CPU_FEW_INL_H_
#undef REGARD_CPU_FEW_INL_H_
#else
#define REGARD_CPU_FEW_INL_H_
#endif

#include "cpu/numeric-inl.h"
#include "cpu/panel.h"
#include "cpu/score-inl.h"
#include "cpu/scratch.h"
#include "cpu/softmax-inl.h"
#include "cpu/stream-inl.h"

HWY_BEFORE_NAMESPACE();
namespace regard::cpu {
namespace HWY_NAMESPACE {

// The rows of K or V that a tile names.
struct TileRows {
  const char* row[kKeys];
  void Find(const View& v, const RowTile& t, int64_t h, const KeyTile& tile) {
    const char* first = v.at(t.b, h, 0);
    for (int j = 0; j < tile.n; ++j) row[j] = first + tile.id[j] * v.stride[2];
    for (int j = tile.n; j < kKeys; ++j) row[j] = row[j - 1];
  }
};

// A tile and the memory behind it.
struct Station {
  KeyTile tile;
  TileRows k, v;
};

class Few {
 public:
  Few(const Call& c, const RowTile& t, const Scratch& m)
      : c_(c),
        p_(c.w.problem),
        t_(t),
        m_(m),
        k_(c.w.k),
        v_(c.w.v),
        rows_(int(t.rows())),
        depth_(round_up(p_.dk, kLanes)),
        width_(round_up(p_.dv, kLanes)),
        panel_(*c.w.ranges, t, 0, rows_, rows_) {
    const Rows queries(c.w.q);
    for (int r = 0; r < rows_; ++r) {
      float* q = m.queries + r * depth_;
      queries.Read(t.b, t.h0 + r % t.heads, t.query(r), m.decoded);
      for (int64_t i = 0; i < p_.dk; ++i) q[i] = m.decoded[i] * c.q_factor;
      std::fill(q + p_.dk, q + depth_, 0.0f);
    }
    std::fill_n(m.acc, rows_ * width_, 0.0f);
    std::fill_n(m.sum, rows_ * kLanes, 0.0f);
    std::fill_n(m.max, rows_, c.sigmoid ? 0.0f : -kInf);
  }

  void Run(int64_t begin, int64_t end) {
    if (begin == end) return;
    const KeyStream stream(c_.w, t_);
    Station stations[2] = {}, *now = stations, *next = stations + 1;
    Arrive(stream, begin, now);
    for (int64_t t = begin; t < end; ++t, std::swap(now, next)) {
      const bool more = t + 1 < end;
      if (more) Arrive(stream, t + 1, next);
      if (panel_.reads(now->tile)) Step(*now, more ? next : nullptr);
    }
  }

  bool clean() const {
    const DF d;
    VF poison = hn::Zero(d);
    for (int64_t i = 0; i < rows_ * width_; i += kLanes) {
      poison = hn::MulAdd(hn::Load(d, m_.acc + i), hn::Zero(d), poison);
    }
    for (int r = 0; r < rows_; ++r) {
      poison = hn::MulAdd(hn::Load(d, m_.sum + r * kLanes), hn::Zero(d), poison);
    }
    return hn::AllTrue(d, hn::Eq(poison, hn::Zero(d)));
  }

  // Every row's Partial, in natural units: f(row, head, acc).
  template <class F>
  void ForRows(const F& f) const {
    for (int r = 0; r < rows_; ++r) {
      const float max = c_.sigmoid ? 0.0f : m_.max[r] * kLn2;
      f(r, PartialHead<float>{max, SumLanes(m_.sum + r * kLanes)}, m_.acc + r * width_);
    }
  }

 private:
  void Arrive(const KeyStream& stream, int64_t t, Station* s) const {
    const int64_t h = t_.kv_head(p_);
    stream.get(t, s->tile);
    s->k.Find(k_.view(), t_, h, s->tile);
    s->v.Find(v_.view(), t_, h, s->tile);
  }

  void Step(const Station& at, const Station* next) {
    const KeyTile& tile = at.tile;
    Dot(at, next);
    const int vecs = round_up(tile.n, kLanes) / kLanes;
    const bool full = tile.n % kLanes == 0 && panel_.reads_all(tile);
    const View& kb = c_.w.key_bias;
    if (kb) ReadBias(kb, Element(kb, t_.b, t_.kv_head(p_), 0), tile, m_.key_bias);
    for (int r = 0; r < rows_; ++r) {
      float *s = m_.scores + r * kKeys, *sum = m_.sum + r * kLanes;
      ScoreRow(c_, tile, kb ? m_.key_bias : nullptr, t_.b, t_.h0 + r % t_.heads, t_.query(r), full,
               vecs, s);
      if (c_.sigmoid) {
        SigmoidRow<F32>(s, vecs, c_.shift, sum);
      } else {
        SoftmaxRow<F32, 0>(s, vecs, m_.max + r, sum, m_.acc + r * width_, width_);
      }
    }
    Add(at, next);
  }

  void Dot(const Station& at, const Station* next) const {
    const int vecs = int(depth_ / kLanes);
    ForSlices(k_, depth_, at.tile, at.k, next ? &next->k : nullptr,
              [&](auto type, const char* const* row, int first, int keys, const Ahead& ahead) {
                ForRowBlocks(rows_, [&](auto r, int r0) {
                  DotRows<type(), r()>(m_.queries + r0 * depth_, vecs, row, keys,
                                       r0 == 0 ? ahead : Ahead(), m_.scores + r0 * kKeys + first);
                });
              });
  }

  void Add(const Station& at, const Station* next) const {
    ForSlices(v_, width_, at.tile, at.v, next ? &next->v : nullptr,
              [&](auto type, const char* const* row, int first, int keys, const Ahead& ahead) {
                ForRowBlocks(rows_, [&](auto r, int r0) {
                  AddRows<type(), r()>(m_.scores + r0 * kKeys + first, row, keys,
                                       r0 == 0 ? ahead : Ahead(), m_.acc + r0 * width_, width_);
                });
              });
  }

  // Calls f(type, rows, first key, keys, what to fetch meanwhile): the whole tile at once where its
  // rows can be widened straight from memory, else a vector's worth of keys decoded to f32.
  template <class F>
  void ForSlices(const Rows& rows, int64_t up, const KeyTile& tile, const TileRows& here,
                 const TileRows* next, const F& f) const {
    const View& v = rows.view();
    Ahead ahead;
    if (next && rows.dense()) {
      const int64_t bytes = v.size[3] / info(v.dtype).block * info(v.dtype).bytes;
      ahead = {next->row, int((bytes + 63) / 64)};
    }
    if (rows.plain() && rows.size() % kLanes == 0) {
      return WithPlainType(v.dtype, [&](auto type) { f(type, here.row, 0, tile.n, ahead); });
    }
    const int64_t stride = round_up(up, 32);
    const char* decoded[kLanes];
    for (int j = 0; j < kLanes; ++j) {
      decoded[j] = reinterpret_cast<const char*>(m_.decoded + j * stride);
    }
    for (int first = 0; first < tile.n; first += kLanes) {
      const int keys = std::min(kLanes, tile.n - first);
      for (int j = 0; j < keys; ++j) {
        for (int line = 0; line < ahead.lines; ++line) ahead.Fetch(first + j, line);
        rows.Read(t_.b, t_.kv_head(p_), tile.id[first + j], m_.decoded + j * stride);
      }
      f(std::integral_constant<DType, DType::f32>(), decoded, first, keys, Ahead());
    }
  }

  const Call& c_;
  const Problem& p_;
  const RowTile& t_;
  const Scratch& m_;
  const Rows k_, v_;
  const int rows_;
  const int64_t depth_, width_;
  const Panel panel_;
};

}  // namespace HWY_NAMESPACE
}  // namespace regard::cpu
HWY_AFTER_NAMESPACE();
#endif
