#include "cuda/sm80/states.h"

#include <algorithm>
#include <bit>
#include <vector>

#include "cuda/sm80/instance.h"

namespace regard::cuda::sm80 {
namespace {

constexpr int64_t kChunk = 128;  // features whose states lie in the workspace at once

int64_t blocks_of(int64_t keys) { return (keys + kStateKeys - 1) / kStateKeys; }

// The bits of WholeBlocks, and how many pairs they stand for.
struct Whole {
  int64_t batch = 1, heads = 1, tiles = 0, rows = 64, words = 0;
  std::vector<uint32_t> bits;
  double pairs = 0;

  Whole(const Problem& p, const Branch& b, const RowRanges& ranges)
      : words((blocks_of(p.nk) + 31) / 32) {
    const bool listed = bool(b.cover.list);
    if (listed) {
      const IndexList& l = *b.cover.list;
      // Tiles smaller than a block, single keys and shared lists are read pair by pair.
      if (l.bk % kStateKeys != 0 || !l.list_of.empty()) return;
      batch = l.batch, heads = l.heads, rows = l.bq;
    } else if (b.rule.mask) {
      return;
    }
    tiles = (p.nq + rows - 1) / rows;
    bits.resize(size_t(batch * heads * tiles * words));
    for (int64_t n = 0; n < batch * heads * tiles; ++n)
      listed ? of_list(p, *b.cover.list, n) : of_ranges(p, ranges, n);
  }

 private:
  int64_t queries(const Problem& p, int64_t n) const {
    const int64_t i0 = n % tiles * rows;
    return std::min(rows, p.nq - i0);
  }

  void of_list(const Problem& p, const IndexList& l, int64_t n) {
    for (int64_t e = l.start[size_t(n)]; e < l.start[size_t(n) + 1]; ++e) {
      const uint32_t entry = l.index[size_t(e)];
      if (entry & IndexList::kBoundary) continue;
      const int64_t first = int64_t(entry) * (l.bk / kStateKeys);
      add(p, n, first, std::min(first + l.bk / kStateKeys, blocks_of(p.nk)));
    }
  }

  void of_ranges(const Problem& p, const RowRanges& r, int64_t n) {
    int64_t lo = 0, hi = p.nk, sink = p.nk;
    for (int64_t i = n * rows; i < n * rows + queries(p, n); ++i) {
      lo = std::max<int64_t>(lo, r.lo[size_t(i)]), hi = std::min<int64_t>(hi, r.hi[size_t(i)]);
      sink = std::min<int64_t>(sink, r.sink[size_t(i)]);
    }
    // Blocks that end at or before key n; the last one ends with the keys.
    const auto ended = [&](int64_t k) { return k == p.nk ? blocks_of(k) : k / kStateKeys; };
    add(p, n, 0, ended(sink));
    add(p, n, std::max(blocks_of(lo), ended(sink)), ended(hi));
  }

  void add(const Problem& p, int64_t n, int64_t first, int64_t last) {
    for (int64_t c = first; c < last; ++c) {
      bits[size_t(n * words + c / 32)] |= 1u << c % 32;
      pairs += double(queries(p, n)) * double(std::min<int64_t>(kStateKeys, p.nk - c * kStateKeys));
    }
  }
};

}  // namespace

std::unique_ptr<States> States::make(const Problem& p, const Branch& b, const RowRanges& ranges,
                                     DType type, Upload* upload,
                                     const std::function<int64_t(int64_t)>& reserve) {
  const Whole whole(p, b, ranges);
  const int64_t blocks = blocks_of(p.nk),
                m = b.weight.directions.view ? b.weight.directions.view.size[2] : p.dk;
  const int64_t sets = whole.heads == p.heads ? p.heads : p.kv_heads;
  // A pair costs m + dv multiplications at 7 TFLOP/s, a state's number two trips through memory.
  const double lists = double(p.batch * p.heads) / double(whole.batch * whole.heads);
  const double by_pairs = lists * whole.pairs * double(2 * (m + p.dv)) / 7e12;
  const double numbers =
      double(m * p.dv * p.batch) * double(p.kv_heads * blocks + sets * whole.tiles);
  const int64_t wide = (p.dv + 127) / 128;
  if (by_pairs < numbers * 8 / 2.5e12 || p.batch * p.heads * wide > 65535) return nullptr;

  auto out = std::make_unique<States>();
  StateParams& s = out->params_;
  s.whole = {nullptr,
             whole.batch == 1 ? 0 : int32_t(whole.heads),
             int32_t(whole.heads),
             int32_t(whole.tiles),
             int32_t(whole.rows),
             int32_t(whole.words)};
  s.type = type == DType::f16 ? Type::f16 : Type::bf16;
  s.batch = int32_t(p.batch), s.heads = int32_t(p.heads), s.kv_heads = int32_t(p.kv_heads);
  s.sets = int32_t(sets), s.nq = int32_t(p.nq), s.nk = int32_t(p.nk), s.dv = int32_t(p.dv);
  s.m = int32_t(m), s.blocks = int32_t(blocks), s.chunk = int32_t(std::min(m, kChunk));
  out->bits_ = upload->put(whole.bits);
  const int64_t kv = p.batch * p.kv_heads, all = p.batch * sets, padded = whole.words * 32;
  out->shift_at_ = reserve(kv * m * padded * 4), out->sum_at_ = reserve(kv * m * padded * 4);
  out->loose_at_ = reserve(kv * padded);
  out->tile_shift_at_ = reserve(all * whole.tiles * m * 4);
  out->tile_sum_at_ = reserve(all * whole.tiles * m * 4);
  out->states_at_ = reserve(kv * blocks * s.chunk * p.dv * 4);
  out->tile_states_at_ = reserve(all * whole.tiles * s.chunk * p.dv * 4);
  out->acc_at_ = reserve(p.batch * p.heads * p.nq * p.dv * 4);
  out->head_at_ = reserve(p.batch * p.heads * p.nq * 8);
  return out;
}

void States::run(const Upload& upload, char* workspace, void* stream, Params* p) const {
  StateParams s = params_;
  const auto floats = [&](int64_t at) { return reinterpret_cast<float*>(workspace + at); };
  const auto numbers = [&](int64_t at) { return reinterpret_cast<int32_t*>(workspace + at); };
  s.whole.bits = upload.at<uint32_t>(bits_);
  s.v = paged(*p, p->v, p->v_page);
  s.q_features = p->q_features, s.k_features = p->k_features;
  s.q_top = p->q_top, s.k_top = p->k_top;
  s.shift = numbers(shift_at_), s.sum = floats(sum_at_);
  s.loose = reinterpret_cast<uint8_t*>(workspace + loose_at_);
  s.tile_shift = numbers(tile_shift_at_), s.tile_sum = floats(tile_sum_at_);
  s.states = floats(states_at_), s.tile_states = floats(tile_states_at_);
  s.acc = floats(acc_at_), s.head = floats(head_at_);
  launch_state_bounds(s, stream);
  for (; s.first < s.m; s.first += s.chunk) {
    s.count = std::min(s.chunk, s.m - s.first);
    launch_states(s, stream);
  }
  check(cudaPeekAtLastError(), "launch the kernels of states");
  p->whole = s.whole, p->loose = s.loose, p->start_acc = s.acc, p->start_head = s.head;
}

}  // namespace regard::cuda::sm80
