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

  // Panels [dk][rows].
  void PackQueries(const Panel& p) const {
    float* dst = m.queries + p.first * dk;
    ForQueries(q, t, p, c.q_factor, m.decoded, [&](int r, const float* row) {
      for (int64_t i = 0; i < dk; ++i) dst[i * p.rows + r] = row[i];
    });
  }
  void PackKeys(const KeyTile& tile) const {
    const auto read = [&](int j, float* row) HWY_ATTR { k.Read(t.b, head, tile.id[j], row); };
    HWY_NAMESPACE::PackKeys(tile, dk, read, m.decoded, m.keys);
  }
  // Whether all of them are finite.
  bool PackValues(const KeyTile& tile) const {
    return HWY_NAMESPACE::PackValues(v, t.b, head, tile, m.decoded, m.values);
  }
  void Scores(const Panel& p, int vecs) const {
    ScorePanel(p.rows, m.queries + p.first * dk, m.keys, dk, vecs, m.scores);
  }
  void Weights(const Panel&, int) const {}
  void AddValues(const Panel& p, int keys, float* acc, int64_t width) const {
    ValuePanel(p.rows, m.scores, m.values, keys, int(width / kLanes), acc, width);
  }
  // Single elements, for the tiles whose V is not finite.
  float Weight(int r, int j) const { return m.scores[r * kKeys + j]; }
  VF Value(int j, int64_t column) const {
    return hn::Load(DF(),
                    m.values + column / kPanel * kKeys * kPanel + j * kPanel + column % kPanel);
  }
};

#if REGARD_DOT
// Words of two bf16 in the place of f32 numbers, at half the depth.
class Bf16 : protected Operands {
 public:
  static constexpr bool kRounds = true;
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
  void Scores(const Panel& p, int vecs) const {
    bf16::ScorePanel(p.rows, m.query_words + p.first * depth_, m.key_words, depth_, vecs, m.scores);
  }
  void Weights(const Panel& p, int vecs) const {
    bf16::RoundWeights(p.rows, m.scores, vecs, m.weights, m.sum + p.first * kLanes);
  }
  void AddValues(const Panel& p, int keys, float* acc, int64_t width) const {
    bf16::ValuePanel(p.rows, m.weights, m.value_pairs, (keys + 1) / 2, int(width / kLanes), acc,
                     width);
  }
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
#endif  // REGARD_DOT

}  // namespace HWY_NAMESPACE
}  // namespace regard::cpu
HWY_AFTER_NAMESPACE();
#endif
