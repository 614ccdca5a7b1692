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

#include "cpu/level_keys-inl.h"
#include "cpu/level_values-inl.h"
#include "cpu/numeric-inl.h"
#include "cpu/panel.h"
#include "cpu/score-inl.h"
#include "cpu/scratch.h"
#include "cpu/softmax-inl.h"

HWY_BEFORE_NAMESPACE();
namespace regard::cpu {
namespace HWY_NAMESPACE {

// Bytes between the rows in use and those being fetched: enough for memory's latency.
inline constexpr int64_t kAheadBytes = 8192;

// A tile and the rows that it names, in the order in which they are read.
struct Station {
  KeyTile tile;
  const char* row[4 * kKeys];  // of K, of V, then of both in the tile behind
  const char** k() { return row; }
  const char** v() { return row + kKeys; }
  const char* const* k() const { return row; }
  const char* const* v() const { return row + kKeys; }
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
      if (integer(k_)) QuantizeQueries(r);
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
      if (t + 1 < end) Arrive(stream, t + 1, next);
      std::copy_n(t + 1 < end ? next->row : now->row, 2 * kKeys, now->row + 2 * kKeys);
      if (panel_.reads(now->tile)) Step(*now);
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
    return finite_ && hn::AllTrue(d, hn::Eq(poison, hn::Zero(d)));
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
    stream.get(t, s->tile);
    FindRows(k_.view(), s->tile, s->k());
    FindRows(v_.view(), s->tile, s->v());
  }

  void FindRows(const View& v, const KeyTile& tile, const char** row) const {
    const char* first = v.at(t_.b, t_.kv_head(p_), 0);
    for (int j = 0; j < tile.n; ++j) row[j] = first + tile.id[j] * v.stride[2];
    for (int j = tile.n; j < kKeys; ++j) row[j] = row[j - 1];
  }

  void Step(const Station& at) {
    const KeyTile& tile = at.tile;
    Dot(at);
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
      } else if (vecs == kKeyVecs) {
        SoftmaxRow<F32, kKeyVecs>(s, vecs, m_.max + r, sum, m_.acc + r * width_, width_);
      } else {
        SoftmaxRow<F32, 0>(s, vecs, m_.max + r, sum, m_.acc + r * width_, width_);
      }
    }
    Add(at);
  }

  // Whether this tensor's own levels are multiplied as they are.
  bool integer(const Rows& rows) const {
    return REGARD_LEVELS && info(rows.view().dtype).block > 1 &&
           (c_.numeric == Numeric::int16 || c_.numeric == Numeric::int8);
  }

  void Dot(const Station& at) {
    if (integer(k_)) return DotInteger(at);
    const int vecs = int(depth_ / kLanes);
    ForSlices(k_, depth_, at.tile, at.k(),
              [&](auto type, const char* const* row, int first, int keys, const Ahead& ahead) {
                ForRowBlocks(rows_, [&](auto r, int r0) {
                  DotRows<type(), r()>(m_.queries + r0 * depth_, vecs, row, keys,
                                       r0 == 0 ? ahead : Ahead(), m_.scores + r0 * kKeys + first);
                });
              });
  }

  void Add(const Station& at) {
    if (integer(v_)) return AddInteger(at);
    ForSlices(v_, width_, at.tile, at.v(),
              [&](auto type, const char* const* row, int first, int keys, const Ahead& ahead) {
                ForRowBlocks(rows_, [&](auto r, int r0) {
                  AddRows<type(), r()>(m_.scores + r0 * kKeys + first, row, keys,
                                       r0 == 0 ? ahead : Ahead(), m_.acc + r0 * width_, width_);
                });
              });
  }

#if !REGARD_LEVELS
  void QuantizeQueries(int) {}
  void DotInteger(const Station&) {}
  void AddInteger(const Station&) {}
#else
  int32_t* query_words(int r) const {
    return reinterpret_cast<int32_t*>(m_.query_words) + r * (p_.dk / 32) * kQueryWords;
  }

  void QuantizeQueries(int r) {
    const int64_t blocks = p_.dk / 32;
    const auto quantize = dot_ ? QuantizeRow<true> : QuantizeRow<false>;
    finite_ &= quantize(m_.queries + r * depth_, blocks, LevelOffset(k_.view().dtype),
                        query_words(r), m_.query_step + r, m_.query_low + r * blocks);
  }

  // f(whether VNNI serves, whether levels are nibbles), as constants.
  template <class F>
  void WithForm(const Rows& rows, const F& f) const {
    const auto with_dot = [&](auto dot) {
      if (Nibbles(rows.view().dtype)) return f(dot, std::true_type());
      f(dot, std::false_type());
    };
    if (dot_) return with_dot(std::true_type());
    with_dot(std::false_type());
  }

  void DotInteger(const Station& at) {
    const int64_t blocks = p_.dk / 32;
    LevelRows levels;
    Find(k_, at.k(), at.tile.n, reinterpret_cast<char*>(m_.keys), &levels);
    const Ahead ahead = Later(k_, at.k());
    WithForm(k_, [&](auto dot, auto nibbles) {
      ForRowBlocks(rows_, [&](auto r, int r0) {
        const LevelQueries q{query_words(r0), m_.query_step + r0, m_.query_low + r0 * blocks};
        DotLevels<r(), dot(), nibbles()>(q, levels, at.tile.n, r0 == 0 ? ahead : Ahead(),
                                         m_.scores + r0 * kKeys);
      });
    });
  }

  void AddInteger(const Station& at) {
    LevelRows levels;
    Find(v_, at.v(), at.tile.n, reinterpret_cast<char*>(m_.values), &levels);
    const Ahead ahead = Later(v_, at.v());
    const int offset = LevelOffset(v_.view().dtype);
    WithForm(v_, [&](auto dot, auto nibbles) {
      ForRowBlocks(rows_, [&](auto r, int r0) {
        AddLevelRows<r(), dot(), nibbles()>(
            m_.scores + r0 * kKeys, levels, offset, at.tile.n, r0 == 0 ? ahead : Ahead(),
            reinterpret_cast<int32_t*>(m_.weights), m_.acc + r0 * width_, width_);
      });
    });
  }

  void Find(const Rows& rows, const char* const* row, int keys, char* buffer, LevelRows* out) {
    finite_ &= WithBlockType(rows.view().dtype, [&](auto type) {
      return FindLevels<type()>(row, keys, rows.size() / 32, buffer, m_.key_step, m_.key_sum, out);
    });
  }
#endif

  // How many places ahead rows are fetched: the same tensor's of the next tile where one is read in
  // several passes over the tile.
  int KeysAhead() const {
    if (integer(k_) || integer(v_) || width_ > PassVectors(rows_) * kLanes) return 2 * kKeys;
    return int(std::clamp<int64_t>(kAheadBytes / std::max(k_.bytes(), v_.bytes()), 4, 2 * kKeys));
  }

  // What is fetched while `row`s are read. A quantised row may begin anywhere in its first line.
  Ahead Later(const Rows& rows, const char* const* row) const {
    if (!rows.dense()) return {};
    const bool blocks = info(rows.view().dtype).block > 1;
    return {row + ahead_, int((rows.bytes() + (blocks ? 125 : 63)) / 64)};
  }

  // Calls f(type, rows, first key, keys, what to fetch meanwhile): the whole tile at once where its
  // rows can be widened straight from memory, else a vector's worth of keys decoded to f32.
  template <class F>
  void ForSlices(const Rows& rows, int64_t up, const KeyTile& tile, const char* const* row,
                 const F& f) const {
    const View& v = rows.view();
    const Ahead ahead = Later(rows, row);
    if (rows.plain() && rows.size() % kLanes == 0) {
      return WithPlainType(v.dtype, [&](auto type) { f(type, row, 0, tile.n, ahead); });
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
  const int ahead_ = KeysAhead();
  const bool dot_ = kLanes == 16 && has_dot();
  bool finite_ = true;  // what the integers cannot say
};

}  // namespace HWY_NAMESPACE
}  // namespace regard::cpu
HWY_AFTER_NAMESPACE();
#endif
