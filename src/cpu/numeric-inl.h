// The arithmetics: how Q, K and V are packed and how their products are formed. All give scores and
// sums in f32; scores, softmax and masks around them know nothing else. Layer: cpu (per target).
#if defined(REGARD_CPU_NUMERIC_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef REGARD_CPU_NUMERIC_INL_H_
#undef REGARD_CPU_NUMERIC_INL_H_
#else
#define REGARD_CPU_NUMERIC_INL_H_
#endif

#include "cpu/bf16.h"
#include "cpu/call.h"
#include "cpu/gemm-inl.h"
#include "cpu/int8.h"
#include "cpu/isa.h"
#include "cpu/pack-inl.h"
#include "cpu/scratch.h"

HWY_BEFORE_NAMESPACE();
namespace regard::cpu {
namespace HWY_NAMESPACE {

// What every arithmetic sees of its item.
struct Operands {
  Operands(const Call& call, const RowTile& tile, const Scratch& scratch)
      : c(call), t(tile), m(scratch), q(call.w.q), k(call.w.k), v(call.w.v) {
    head = t.kv_head(c.w.problem);
    dk = c.w.problem.dk, dv = c.w.problem.dv;
  }
  void Prefetch(int64_t id) const {
    for (const Rows* x : {&k, &v}) {
      const char* row = x->view().at(t.b, head, id);
      const int64_t bytes = x->bytes();
      for (int64_t n = 0; n < bytes; n += 64) __builtin_prefetch(row + n, 0, 2);
    }
  }
  const Call& c;
  const RowTile& t;
  const Scratch& m;
  const Rows q, k, v;
  int64_t head, dk, dv;
};

class F32 : Operands {
 public:
  static constexpr bool kRounds = false;
  using Operands::Operands;
  using Operands::Prefetch;

  // Panels [dk][rows].
  void PackQueries(const Panel& p) const {
    float* dst = m.queries + p.first * dk;
    ForQueries(q, t, p, c.q_factor, m.decoded, [&](int r, const float* row) {
      for (int64_t i = 0; i < dk; ++i) dst[i * p.rows + r] = row[i];
    });
  }
  void PackKeys(const KeyTile& tile) const {
#if HWY_TARGET != HWY_SCALAR
    if (k.plain() && dk % kLanes == 0) {
      return WithPlainType(k.view().dtype, [&](auto type) {
        PackPlainKeys<type()>(k.view().at(t.b, head, 0), k.view().stride[2], tile, dk, m.keys);
      });
    }
#endif
    const auto read = [&](int j, float* row) HWY_ATTR { k.Read(t.b, head, tile.id[j], row); };
    HWY_NAMESPACE::PackKeys(tile, dk, read, m.decoded, m.keys);
  }
  // Whether all of them are finite.
  bool PackValues(const KeyTile& tile) const {
    return HWY_NAMESPACE::PackValues(v, t.b, head, tile, m.decoded, m.values);
  }
  // Of the tile's keys from `from` on, a multiple of a panel; so in all that follows.
  void Scores(const Panel& p, int from, int vecs) const {
    ScorePanel(p.rows, m.queries + p.first * dk, m.keys + from * dk, dk, vecs, m.scores + from);
  }
  void Weights(const Panel&, int, int) const {}
  // Keys [from, keys).
  void AddValues(const Panel& p, int from, int keys, float* acc, int64_t width) const {
    ValuePanel(p.rows, m.scores + from, m.values + from * kPanel, keys - from, int(width / kLanes),
               acc, width);
  }
  // The row's values are left out.
  void Forget(int r) const { std::fill_n(m.scores + r * kKeys, kKeys, 0.0f); }
  // Single elements, for the tiles whose V is not finite.
  float Weight(int r, int j) const { return m.scores[r * kKeys + j]; }
  VF Value(int j, int64_t column) const {
    return hn::Load(DF(),
                    m.values + column / kPanel * kKeys * kPanel + j * kPanel + column % kPanel);
  }
};

#if REGARD_DOT && HWY_MAX_BYTES == 64
// Words of two bf16 in the place of f32 numbers, at half the depth.
class Bf16 : protected Operands {
 public:
  static constexpr bool kRounds = true;
  using Operands::Prefetch;
  Bf16(const Call& call, const RowTile& tile, const Scratch& scratch)
      : Operands(call, tile, scratch), depth_((dk + 1) / 2) {}

  // Panels [depth][rows].
  void PackQueries(const Panel& p) const {
    uint32_t* dst = m.query_words + p.first * depth_;
    uint32_t* pairs = m.word_rows;
    ForQueries(q, t, p, c.q_factor, m.decoded, [&](int r, const float* row) {
      bf16::Round(DType::f32, reinterpret_cast<const char*>(row), dk, pairs);
      for (int64_t i = 0; i < depth_; ++i) dst[i * p.rows + r] = pairs[i];
    });
  }
  void PackKeys(const KeyTile& tile) const {
    const auto read = [&](int j, float* row) {
      uint32_t* pairs = reinterpret_cast<uint32_t*>(row);
      if (k.plain()) {
        return bf16::Round(k.view().dtype, k.view().at(t.b, head, tile.id[j]), dk, pairs);
      }
      k.Read(t.b, head, tile.id[j], m.decoded);
      bf16::Round(DType::f32, reinterpret_cast<const char*>(m.decoded), dk, pairs);
    };
    HWY_NAMESPACE::PackKeys(tile, depth_, read, reinterpret_cast<float*>(m.word_rows),
                            reinterpret_cast<float*>(m.key_words));
  }
  bool PackValues(const KeyTile& tile) const {
    const int64_t stride = round_up(dv, 32);
    bool finite = true;
    for (int j = 0; j < tile.n; j += 2) {
      const char* row[2] = {};
      for (int i = 0; i < 2 && j + i < tile.n; ++i) {
        if (v.plain()) {
          row[i] = v.view().at(t.b, head, tile.id[j + i]);
        } else {
          v.Read(t.b, head, tile.id[j + i], m.decoded + i * stride);
          row[i] = reinterpret_cast<const char*>(m.decoded + i * stride);
        }
      }
      finite &= bf16::InterleaveValues(v.plain() ? v.view().dtype : DType::f32, row[0], row[1], dv,
                                       m.value_pairs + j / 2 * kPanel, kKeys / 2 * kPanel);
    }
    return finite;
  }
  void Scores(const Panel& p, int from, int vecs) const {
    bf16::ScorePanel(p.rows, m.query_words + p.first * depth_, m.key_words + from * depth_, depth_,
                     vecs, m.scores + from);
  }
  void Weights(const Panel& p, int from, int vecs) const {
    bf16::RoundWeights(p.rows, m.scores + from, vecs, m.weights + from / 2,
                       m.sum + p.first * kLanes);
  }
  void AddValues(const Panel& p, int from, int keys, float* acc, int64_t width) const {
    bf16::ValuePanel(p.rows, m.weights + from / 2, m.value_pairs + from / 2 * kPanel,
                     (keys - from + 1) / 2, int(width / kLanes), acc, width);
  }
  void Forget(int r) const { std::fill_n(m.weights + r * (kKeys / 2), kKeys / 2, 0u); }
  float Weight(int r, int j) const {
    return bf16_to_f32(uint16_t(m.weights[r * (kKeys / 2) + j / 2] >> (j % 2 * 16)));
  }
  VF Value(int j, int64_t column) const {
    const DI di;
    const uint32_t* pair =
        m.value_pairs + column / kPanel * (kKeys / 2) * kPanel + j / 2 * kPanel + column % kPanel;
    const auto both = hn::Load(di, reinterpret_cast<const int32_t*>(pair));
    const auto high =
        j % 2 ? hn::And(both, hn::Set(di, int32_t(0xffff0000))) : hn::ShiftLeft<16>(both);
    return hn::BitCast(DF(), high);
  }

 private:
  int64_t depth_;  // pairs of a row of Q or K
};

// Q K^T in 8-bit levels with a step for every 32 channels of a row; P V as in Bf16. A cache whose
// blocks are step * level gives its own levels. Keys of other types are rounded to levels after
// their tile's mean is taken off (SageAttention, arXiv 2410.02367, takes the mean of all keys; a
// tile's own follows what drifts with the position), and q . mean is added back in f32.
class Int8 : public Bf16 {
 public:
  Int8(const Call& call, const RowTile& tile, const Scratch& scratch)
      : Bf16(call, tile, scratch), blocks_(round_up(dk, int8::kBlock) / int8::kBlock) {
    const DType type = k.view().dtype;
    exact_ =
        type == DType::q8_0 || type == DType::q4_0 || type == DType::q5_0 || type == DType::iq4_nl;
    std::fill_n(m.shift, kMaxRows, 0.0f);
  }

  // Panels [words][rows] with steps and lows [blocks][rows]; the f32 panel is for the mean.
  void PackQueries(const Panel& p) const {
    const int64_t words = blocks_ * int8::kWords;
    float* plain = m.queries + p.first * dk;
    uint32_t* dst = m.query_words + p.first * words;
    float *step = m.query_step + p.first * blocks_, *low = m.query_low + p.first * blocks_;
    ForQueries(q, t, p, c.q_factor, m.decoded, [&](int r, const float* row) {
      int8::QuantizeQuery(row, blocks_, m.word_rows, step + r, low + r, p.rows);
      for (int64_t i = 0; i < words; ++i) dst[i * p.rows + r] = m.word_rows[i];
      for (int64_t i = 0; i < dk && !exact_; ++i) plain[i * p.rows + r] = row[i];
    });
  }

  void PackKeys(const KeyTile& tile) const {
    if (!exact_) ReadLessMean(tile);
    const int64_t stride = round_up(dk, 32);
    const auto read = [&](int j, float* row) HWY_ATTR {
      uint32_t* levels = reinterpret_cast<uint32_t*>(row);
      if (exact_) return ReadKey(tile.id[j], levels, m.key_step + j);
      int8::QuantizeKey(m.keys + j * stride, m.mean, blocks_, levels, m.key_step + j, kKeys);
    };
    HWY_NAMESPACE::PackKeys(tile, blocks_ * int8::kWords, read,
                            reinterpret_cast<float*>(m.word_rows),
                            reinterpret_cast<float*>(m.key_words));
    int8::SumLevels(m.key_words, blocks_, round_up(tile.n, kLanes) / kLanes, m.key_step, m.key_sum);
  }

  void Scores(const Panel& p, int from, int vecs) const {
    if (!exact_) MeanProducts(p);
    const int64_t words = blocks_ * int8::kWords;
    int8::ScorePanel(p.rows,
                     {m.query_words + p.first * words, m.query_step + p.first * blocks_,
                      m.query_low + p.first * blocks_, m.shift},
                     {m.key_words + from * words, m.key_step + from, m.key_sum + from}, blocks_,
                     vecs, m.scores + from);
  }

 private:
  // One key's own levels and steps.
  void ReadKey(int64_t id, uint32_t* levels, float* step) const {
    const View& view = k.view();
    const char* src = view.at(t.b, head, id);
    alignas(16) int8_t level[int8::kBlock];
    for (int64_t n = 0; n < blocks_; ++n, src += info(view.dtype).bytes) {
      if (view.dtype == DType::q8_0) ReadLevels<DType::q8_0>(src, level);
      if (view.dtype == DType::q4_0) ReadLevels<DType::q4_0>(src, level);
      if (view.dtype == DType::q5_0) ReadLevels<DType::q5_0>(src, level);
      if (view.dtype == DType::iq4_nl) ReadLevels<DType::iq4_nl>(src, level);
      std::memcpy(levels + n * int8::kWords, level, sizeof(level));
      uint16_t half;
      std::memcpy(&half, src, 2);
      step[n * kKeys] = f16_to_f32(half);
    }
  }

  // The tile's keys as f32 rows, and their mean (0 in a channel where it is not finite).
  void ReadLessMean(const KeyTile& tile) const {
    const DF d;
    const int64_t stride = round_up(dk, 32);
    for (int j = 0; j < tile.n; ++j) {
      float* row = m.keys + j * stride;
      k.Read(t.b, head, tile.id[j], row);
      std::fill(row + dk, row + stride, 0.0f);
    }
    const VF share = hn::Set(d, 1.0f / float(tile.n));
    for (int64_t i = 0; i < stride; i += kLanes) {
      VF sum = hn::Zero(d);
      for (int j = 0; j < tile.n; ++j) sum = hn::Add(sum, hn::Load(d, m.keys + j * stride + i));
      const VF mean = hn::Mul(sum, share);
      const auto finite = hn::Eq(hn::Sub(mean, mean), hn::Zero(d));
      hn::Store(hn::IfThenElseZero(finite, mean), d, m.mean + i);
    }
  }

  // shift[r] = q_r . mean, a lane a row.
  void MeanProducts(const Panel& p) const {
    const DF d;
    const float* rows = m.queries + p.first * dk;
    VF sum[4] = {hn::Zero(d), hn::Zero(d), hn::Zero(d), hn::Zero(d)};
    const auto add = [&](VF* to, int64_t i) HWY_ATTR {
      *to = hn::MulAdd(hn::LoadU(d, rows + i * p.rows), hn::Set(d, m.mean[i]), *to);
    };
    int64_t i = 0;
    for (; i + 4 <= dk; i += 4) {  // constant indices keep the sums in registers
      REGARD_UNROLL
      for (int n = 0; n < 4; ++n) add(sum + n, i + n);
    }
    for (; i < dk; ++i) add(sum + i % 4, i);
    hn::Store(hn::Add(hn::Add(sum[0], sum[1]), hn::Add(sum[2], sum[3])), d, m.shift);
  }

  int64_t blocks_;  // of 32 channels
  bool exact_;      // the cache's own levels serve
};
#endif  // REGARD_DOT

}  // namespace HWY_NAMESPACE
}  // namespace regard::cpu
HWY_AFTER_NAMESPACE();
#endif
