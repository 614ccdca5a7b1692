// See lists.h.
#include <algorithm>
#include <limits>

#include "core/parallel.h"
#include "stages/device.h"
#include "stages/lists.h"
#include "stages/rows.h"
#include "stages/select.h"

namespace regard::lists {
namespace {

constexpr int64_t kBlock = 64;  // MInference's rows and keys a block

// What one block of rows reads.
struct RowKeys {
  std::vector<Range> ranges;     // ascending, disjoint
  std::vector<int64_t> columns;  // ascending, outside the ranges
};

// `columns` and `offsets` ascend. `end`: one past the position of the block's last row, as if full.
RowKeys row_keys(const std::vector<int64_t>& columns, const std::vector<int64_t>& offsets,
                 int64_t end) {
  RowKeys out;
  auto o = offsets.rbegin();
  while (o != offsets.rend() && *o >= end) ++o;
  if (o == offsets.rend()) return out;
  const auto stop_of = [end](int64_t offset) { return std::max(end - offset, kBlock); };
  Range open{stop_of(*o) - kBlock, stop_of(*o)};
  auto column = columns.begin();
  const auto pass_columns = [&] {
    for (; column != columns.end() && *column < open.end; ++column)
      if (*column < open.begin) out.columns.push_back(*column);
  };
  for (pass_columns(), ++o; o != offsets.rend(); ++o) {
    const int64_t stop = stop_of(*o);
    if (stop > open.end + kBlock) {
      out.ranges.push_back(open);
      open = {stop - kBlock, stop};
    } else if (stop > open.end) {
      open.end += kBlock;
    }
    pass_columns();
  }
  out.ranges.push_back(open);
  return out;
}

// Tiles inside a range go to `tiles`, the other visible keys to `columns`.
void split(const RowKeys& row, int64_t visible, int64_t b, int64_t h, int64_t r, TileBits* tiles,
           std::vector<uint32_t>* columns) {
  auto column = row.columns.begin();
  const auto single = [&](int64_t begin, int64_t end) {
    for (; column != row.columns.end() && *column < begin; ++column)
      columns->push_back(uint32_t(*column));
    for (int64_t j = begin; j < std::min(end, visible); ++j) columns->push_back(uint32_t(j));
  };
  for (const Range& range : row.ranges) {
    // Keys that no row of the block sees are free: the last tile may reach past the range.
    const int64_t end = range.end >= visible ? (visible + kBlock - 1) / kBlock * kBlock : range.end;
    const int64_t first = (range.begin + kBlock - 1) / kBlock, last = end / kBlock;
    if (first >= last) {
      single(range.begin, range.end);
      continue;
    }
    single(range.begin, first * kBlock);
    for (int64_t c = first; c < last; ++c) tiles->set(b, h, r, c);
    single(last * kBlock, range.end);
  }
  single(std::numeric_limits<int64_t>::max(), 0);
}

}  // namespace

void force(estimate::VerticalSlash& s, int64_t columns, int64_t diagonals) {
  if (s.device) {
    s.forced_columns = columns, s.forced_diagonals = diagonals;
    return;
  }
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (int64_t bh = 0; bh < s.batch * s.heads; ++bh) {
    std::fill_n(&s.vertical[bh * s.nk], std::min(columns, s.nk), kInf);
    std::fill_n(&s.slash[bh * s.offsets], std::min(diagonals, s.offsets), kInf);
  }
}

TilesAndColumns vertical_slash(const Ctx& ctx, const Problem& p, const estimate::VerticalSlash& s,
                               int64_t columns, int64_t diagonals) {
  const StageTimer timer(ctx, "lists.vertical_slash");
  need_one_sequence(p, "vertical slash");
  if (s.device) {
    if (device::lists_slashes(p)) return device::vertical_slash(p, s, columns, diagonals);
    return vertical_slash(ctx, p, estimate::on_host(s), columns, diagonals);
  }
  TilesAndColumns out;
  out.bq = out.bk = int(kBlock);
  const int64_t rows = (p.nq + kBlock - 1) / kBlock, cols = (p.nk + kBlock - 1) / kBlock;
  out.tiles = TileBits(p.batch, p.heads, rows, cols);
  std::vector<std::vector<uint32_t>> single(size_t(p.batch * p.heads * rows));
  const int64_t length = std::max<int64_t>(0, p.offset + p.nq);
  const int64_t keys = std::min(p.nk, length);
  parallel_for(p.batch * p.heads, ctx.threads, [&](int64_t bh, int) {
    const auto vertical = top_indices(&s.vertical[bh * s.nk], keys, std::min(columns, keys));
    const auto slash = top_indices(&s.slash[bh * s.offsets], length, std::min(diagonals, length));
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t end = p.offset + (r + 1) * kBlock;
      const int64_t last = p.offset + std::min((r + 1) * kBlock, p.nq) - 1;
      split(row_keys(vertical, slash, end), std::clamp<int64_t>(last + 1, 0, p.nk), bh / p.heads,
            bh % p.heads, r, &out.tiles, &single[bh * rows + r]);
    }
  });
  out.columns =
      std::make_shared<const IndexList>(keys_of(p, p.batch, p.heads, int(kBlock), single));
  return out;
}

TileBits vertical_slash_tiles(const Ctx& ctx, const Inputs& x, const estimate::ProbeTiles& s,
                              int64_t least, bool smallest) {
  const Problem& p = x.problem;
  const StageTimer timer(ctx, "lists.vertical_slash_tiles");
  need_one_sequence(p, "vertical slash");
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const int64_t block = s.block;
  std::vector<float> mass;
  const auto best = [&](const double* sums, int64_t n, int64_t tokens) {
    mass.assign(sums, sums + n);
    mass[0] = kInf;
    return top_indices(mass.data(), n, std::max(smallest ? 1 : tokens / block + 1, least));
  };
  TileStripes kept;
  kept.block = block, kept.diagonals = s.diagonals;
  kept.words = ((p.nk + block - 1) / block + 63) / 64,
  kept.turned_words = s.diagonals / 64 + kept.words + 2;
  const int64_t heads = p.batch * p.heads;
  kept.columns.assign(size_t(heads * kept.words), 0);
  kept.turned.assign(size_t(heads * kept.turned_words), 0);
  for (int64_t bh = 0; bh < heads; ++bh) {
    for (const int64_t c : best(&s.vertical[bh * s.columns], s.columns, s.vertical_tokens[bh]))
      kept.columns[bh * kept.words + (c >> 6)] |= uint64_t(1) << (c & 63);
    for (const int64_t d : best(&s.slash[bh * s.diagonals], s.diagonals, s.slash_tokens[bh])) {
      const int64_t bit = s.diagonals - 1 - d;
      kept.turned[bh * kept.turned_words + (bit >> 6)] |= uint64_t(1) << (bit & 63);
    }
  }
  if (x.q.device == Device::cuda) return device::stripes(x, kept, ctx.stream);
  TileBits out(p.batch, p.heads, (p.nq + block - 1) / block, (p.nk + block - 1) / block);
  for (int64_t bh = 0; bh < heads; ++bh)
    for (int64_t r = 0; r < out.rows; ++r) {
      const int64_t first = p.offset + r * block,
                    last = std::min(first + block, p.offset + p.nq) - 1;
      uint64_t* const row = out.word(bh / p.heads, bh % p.heads, r);
      for (int64_t own = std::max<int64_t>(0, first) / block; last >= 0 && own <= last / block;
           ++own) {
        const int64_t down = s.diagonals - 1 - own, shift = down & 63;
        const int64_t count = std::min(own + 1, out.cols);  // tiles up to its own
        for (int64_t w = 0; w * 64 < count; ++w) {
          const uint64_t* const from = &kept.turned[bh * kept.turned_words + (down >> 6) + w];
          uint64_t bits = from[0] >> shift | (shift ? from[1] << (64 - shift) : 0);
          bits |= kept.columns[bh * kept.words + w];
          if (count - w * 64 < 64) bits &= (uint64_t(1) << (count - w * 64)) - 1;
          row[w] |= bits;
        }
      }
    }
  return out;
}

}  // namespace regard::lists
