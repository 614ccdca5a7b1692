#include "mask.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <optional>

#include "core/parallel.h"

namespace regard::ggml {
namespace {

constexpr uint16_t kMinusInfinity = 0xfc00;  // f16
constexpr int kTile = 64;                    // tokens a side of the tiles of a general mask
constexpr size_t kRemember = 4;
constexpr int64_t kFewCells = 1 << 18;  // half a MiB: less than starting threads would cost

// Row `i` of sequence `b`. Only masks shared by all heads come here (node.cc).
const char* row(const ggml_tensor* mask, int64_t b, int64_t i) {
  return static_cast<const char*>(mask->data) + b * mask->nb[3] + i * mask->nb[1];
}

// Each step is a bijection of the state for a given word and of the word for a given state, and
// spreads every bit both ways, so that single changes always show and others all but surely.
uint64_t mix(uint64_t state, uint64_t word) {
  state = (state ^ word) * 0x9e3779b97f4a7c15ull;
  return state ^ state >> 32;
}

uint64_t hash_bytes(const char* data, size_t bytes, uint64_t seed) {
  constexpr int kLanes = 8;  // independent, so that the multiplications overlap
  uint64_t lane[kLanes];
  for (int l = 0; l < kLanes; ++l) lane[l] = seed + l;
  size_t at = 0;
  for (; at + 8 * kLanes <= bytes; at += 8 * kLanes)
    for (int l = 0; l < kLanes; ++l) {
      uint64_t word;
      std::memcpy(&word, data + at + 8 * l, 8);
      lane[l] = mix(lane[l], word);
    }
  uint64_t h = seed;
  for (; at < bytes; ++at) h = mix(h, uint8_t(data[at]));
  for (uint64_t l : lane) h = mix(h, l);
  return h;
}

uint64_t hash_rows(const ggml_tensor* mask, int64_t nq) {
  const size_t bytes = size_t(mask->ne[0]) * sizeof(uint16_t);
  uint64_t h = 0;
  for (int64_t b = 0; b < mask->ne[3]; ++b)
    for (int64_t i = 0; i < nq; ++i) h = mix(h, hash_bytes(row(mask, b, i), bytes, uint64_t(i)));
  return h;
}

// What one row allows.
struct RowFacts {
  int64_t lo = 0, hi = 0, count = 0;  // allowed keys lie in [lo, hi) and are `count`
  bool numeric = false;
  bool contiguous() const { return count == hi - lo; }
};

// Bits of the allowed keys of a row into `words`, 64 at a time.
RowFacts read_row_bits(const uint16_t* cells, int64_t nk, uint64_t* words) {
  RowFacts f;
  bool any = false, numeric = false;
  for (int64_t w = 0; w * 64 < nk; ++w) {
    const int64_t n = std::min<int64_t>(64, nk - w * 64);
    const uint16_t* c = cells + w * 64;
    uint64_t bits = 0;
    bool values = false;
    for (int64_t j = 0; j < n; ++j) {
      const bool allowed = c[j] != kMinusInfinity;
      bits |= uint64_t(allowed) << j;
      values |= allowed && (c[j] & 0x7fff) != 0;  // -0 is 0
    }
    words[w] = bits;
    numeric |= values;
    if (!bits) continue;
    if (!any) f.lo = w * 64 + std::countr_zero(bits);
    f.hi = w * 64 + 64 - std::countl_zero(bits);
    f.count += std::popcount(bits);
    any = true;
  }
  f.numeric = numeric;
  return f;
}

void drop_keys_from(BitMask& m, int64_t nk) {
  const int64_t before = m.words_per_row(), after = (nk + 63) / 64;
  for (int64_t i = 0; i < m.nq; ++i)
    std::copy_n(&m.words[i * before], after, &m.words[i * after]);  // moves towards the front
  m.words.resize(m.nq * after);
  m.words.shrink_to_fit();
  m.nk = nk;
}

// Tiles that hold an allowed pair; null where all do.
std::shared_ptr<const IndexList> tiles_of(std::shared_ptr<const BitMask> mask, bool mask_stays) {
  const BitMask& m = *mask;
  Problem p;
  p.nq = m.nq;
  p.nk = m.nk;
  p.dk = p.dv = p.scale = 1;
  const int bq = int(std::min<int64_t>(kTile, m.nq));
  TileBits keep(1, 1, (m.nq + bq - 1) / bq, (m.nk + kTile - 1) / kTile);
  for (int64_t i = 0; i < m.nq; ++i)
    for (int64_t w = 0; w < m.words_per_row(); ++w)
      if (m.row(0, 0, i)[w]) keep.set(0, 0, i / bq, w);
  if (!mask_stays && keep.count() == keep.rows * keep.cols) return nullptr;
  Plan plan = Plan::tiles(p, bq, kTile, keep);
  if (mask_stays) plan.mask(std::move(mask));
  plan.lower();
  return plan.branches[0].cover.list.host();
}
static_assert(kTile == 64, "tiles_of reads one word a tile column");

// The allowed keys themselves, a list a query.
std::shared_ptr<const IndexList> keys_of(const BitMask& m) {
  auto list = std::make_shared<IndexList>();
  list->rows = m.nq, list->cols = m.nk;
  list->bq = list->bk = 1;
  list->start = {0};
  for (int64_t i = 0; i < m.nq; ++i) {
    for (int64_t w = 0; w < m.words_per_row(); ++w)
      for (uint64_t bits = m.row(0, 0, i)[w]; bits; bits &= bits - 1)
        list->index.push_back(uint32_t(w * 64 + std::countr_zero(bits)));
    list->start.push_back(int64_t(list->index.size()));
  }
  return list;
}

void classify(const std::vector<RowFacts>& rows, MaskPart& part) {
  const int64_t nq = int64_t(rows.size());
  const int64_t offset = rows[0].hi - 1;
  const int64_t left = rows[nq - 1].hi - 1 - rows[nq - 1].lo;  // widest where nothing is cut off
  bool open = true, causal = true, window = true;
  for (int64_t i = 0; i < nq; ++i) {
    const RowFacts& r = rows[i];
    const bool solid = r.count > 0 && r.contiguous();
    const bool diagonal = solid && r.hi == i + offset + 1;
    open &= solid && r.lo == 0 && r.hi == part.nk;
    causal &= diagonal && r.lo == 0;
    window &= diagonal && r.lo == std::max<int64_t>(0, i + offset - left);
  }
  part.offset = offset;
  part.left = left;
  // A single query that sees every key is both open and causal: causal is what methods look for.
  part.shape = causal   ? MaskPart::Shape::causal
               : open   ? MaskPart::Shape::open
               : window ? MaskPart::Shape::window
                        : MaskPart::Shape::general;
}

MaskPart read_part(const ggml_tensor* mask, int64_t b, int64_t nq, int64_t nk, int threads) {
  auto bits = std::make_shared<BitMask>();
  bits->nq = nq;
  bits->nk = nk;
  const int64_t words = bits->words_per_row();
  bits->words.resize(nq * words);
  std::vector<RowFacts> rows(nq);
  parallel_for(nq, threads, [&](int64_t i, int) {
    rows[i] = read_row_bits(reinterpret_cast<const uint16_t*>(row(mask, b, i)), nk,
                            &bits->words[i * words]);
  });
  MaskPart part;
  int64_t pairs = 0;
  for (const RowFacts& r : rows) {
    pairs += r.count;
    part.nk = std::max(part.nk, r.hi);
    part.numeric |= r.numeric;
  }
  part.nk = std::max<int64_t>(part.nk, 1);  // a problem has at least one key, even if unread
  classify(rows, part);
  if (part.shape != MaskPart::Shape::general) return part;
  drop_keys_from(*bits, part.nk);
  part.cover = tiles_of(bits, !part.numeric);
  // A few keys here and there, as a model's own selector leaves them: gathered one by one they come
  // at half the rate of whole tiles, and no query shares them with another.
  const int64_t tiles = part.cover ? int64_t(part.cover->index.size())
                                   : (nq + kTile - 1) / kTile * bits->words_per_row();
  if (4 * pairs <= tiles * kTile) part.cover = keys_of(*bits);
  if (!part.numeric) part.pairs = std::move(bits);
  return part;
}

// Whether every one of the cells forbids its pair, or allows it and adds nothing.
bool all_forbid(const uint16_t* cells, int64_t n) {
  uint16_t other = 0;
  for (int64_t j = 0; j < n; ++j) other |= cells[j] ^ kMinusInfinity;
  return other == 0;
}
bool all_allow(const uint16_t* cells, int64_t n) {
  uint16_t other = 0;
  for (int64_t j = 0; j < n; ++j) other |= cells[j];
  return (other & 0x7fff) == 0;  // -0 is 0
}

// What the first and the last row would make of the mask of sequence `b`, if every row between is
// as they say; none if one is not. One pass over the cells at memory speed, and none more.
std::optional<MaskPart> plain_part(const ggml_tensor* mask, int64_t b, int64_t nq, int64_t nk,
                                   int threads) {
  const auto cells = [&](int64_t i) { return reinterpret_cast<const uint16_t*>(row(mask, b, i)); };
  std::vector<uint64_t> words(size_t((nk + 63) / 64));
  const RowFacts first = read_row_bits(cells(0), nk, words.data());
  const RowFacts last = read_row_bits(cells(nq - 1), nk, words.data());
  MaskPart part;
  part.nk = std::max<int64_t>(1, std::max(first.hi, last.hi));
  part.offset = first.hi - 1;
  part.left = last.hi - 1 - last.lo;
  const bool from_start = first.lo == 0 && last.lo == 0;
  part.shape = last.hi != part.offset + nq ? MaskPart::Shape::open
               : from_start                ? MaskPart::Shape::causal
                                           : MaskPart::Shape::window;
  std::atomic<bool> plain{true};
  const auto check = [&](int64_t i) {
    const bool open = part.shape == MaskPart::Shape::open;
    const bool window = part.shape == MaskPart::Shape::window;
    const int64_t hi = open ? part.nk : i + part.offset + 1;
    const int64_t lo = window ? std::max<int64_t>(0, hi - 1 - part.left) : 0;
    const uint16_t* c = cells(i);
    return lo < hi && hi <= nk && all_forbid(c, lo) && all_allow(c + lo, hi - lo) &&
           all_forbid(c + hi, nk - hi);
  };
  constexpr int64_t kRows = 16;  // an item
  const bool few = nq * nk < kFewCells;
  parallel_for((nq + kRows - 1) / kRows, few ? 1 : threads, [&](int64_t item, int) {
    for (int64_t i = item * kRows; i < std::min(nq, (item + 1) * kRows); ++i)
      if (!plain.load(std::memory_order_relaxed) || !check(i)) return plain.store(false);
  });
  return plain ? std::optional(part) : std::nullopt;
}

std::optional<MaskReading> plain_reading(const ggml_tensor* mask, int64_t nq, int64_t nk,
                                         int threads) {
  MaskReading out;
  for (int64_t b = 0; b < mask->ne[3]; ++b) {
    const auto part = plain_part(mask, b, nq, nk, threads);
    if (!part) return std::nullopt;
    out.parts.push_back(*part);
  }
  return out;
}

bool agree(const MaskPart& a, const MaskPart& b) {
  return a.shape != MaskPart::Shape::general && a.shape == b.shape && a.nk == b.nk &&
         a.offset == b.offset && a.left == b.left && a.numeric == b.numeric;
}

// One part for all sequences where they agree.
void join(MaskReading& reading) {
  const MaskPart& first = reading.parts[0];
  if (std::all_of(reading.parts.begin(), reading.parts.end(),
                  [&](const MaskPart& p) { return agree(first, p); }))
    reading.parts.resize(1);
}

}  // namespace

std::shared_ptr<const MaskReading> MaskReader::read(const ggml_tensor* mask, int64_t nq, int64_t nk,
                                                    int threads) {
  auto reading = std::make_shared<MaskReading>();
  if (!mask) {
    reading->parts.emplace_back().nk = nk;
    return reading;
  }
  if (auto plain = plain_reading(mask, nq, nk, threads)) {
    *reading = std::move(*plain);
    join(*reading);
    return reading;
  }
  std::vector<int64_t> key{mask->ne[0], mask->ne[1], mask->ne[3],
                           nq,          nk,          std::bit_cast<int64_t>(hash_rows(mask, nq))};
  const auto same = [&](const Entry& e) { return e.key == key; };
  if (auto it = std::find_if(recent_.begin(), recent_.end(), same); it != recent_.end()) {
    std::rotate(recent_.begin(), it, it + 1);
    return recent_.front().reading;
  }
  for (int64_t b = 0; b < mask->ne[3]; ++b)
    reading->parts.push_back(read_part(mask, b, nq, nk, threads));
  join(*reading);
  if (recent_.size() == kRemember) recent_.pop_back();
  recent_.insert(recent_.begin(), {std::move(key), reading});
  return reading;
}

}  // namespace regard::ggml
