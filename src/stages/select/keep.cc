// Keep-sets that need no scores.
#include <fmt/format.h>

#include <algorithm>

#include "regard/status.h"
#include "stages/rows.h"
#include "stages/select.h"

namespace regard::keep {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Sets columns [first(r), last(r)] of every row, cut to what exists.
template <class First, class Last>
TileBits columns(const Problem& p, int bq, int bk, const First& first, const Last& last) {
  if (bq < 1 || bk < 1) throw Error(fmt::format("tiles {}x{}; accepted: positive sizes", bq, bk));
  need_one_sequence(p, "tiles");
  TileBits out(1, 1, ceil_div(p.nq, bq), ceil_div(p.nk, bk));
  for (int64_t r = 0; r < out.rows; ++r)
    for (int64_t c = std::max<int64_t>(0, first(r)); c <= std::min(last(r), out.cols - 1); ++c)
      out.set(0, 0, r, c);
  return out;
}

// Position of the last query of tile row r.
int64_t last_position(const Problem& p, int bq, int64_t r) {
  return p.offset + std::min((r + 1) * bq, p.nq) - 1;
}
// The tile column of a position; -1 before the first key.
int64_t column_of(int64_t position, int bk) { return position < 0 ? -1 : position / bk; }

}  // namespace

TileBits none(const Problem& p, int bq, int bk) {
  return columns(
      p, bq, bk, [](int64_t) { return 0; }, [](int64_t) { return int64_t(-1); });
}

TileBits all(const Problem& p, int bq, int bk) {
  return columns(
      p, bq, bk, [](int64_t) { return 0; }, [&](int64_t) { return p.nk; });
}

TileBits sink(const Problem& p, int bq, int bk, int64_t tokens) {
  return columns(
      p, bq, bk, [](int64_t) { return 0; },
      [&](int64_t) { return column_of(std::min(tokens, p.nk) - 1, bk); });
}

TileBits diagonal(const Problem& p, int bq, int bk) {
  return columns(
      p, bq, bk, [&](int64_t r) { return column_of(std::max<int64_t>(0, p.offset + r * bq), bk); },
      [&](int64_t r) { return column_of(last_position(p, bq, r), bk); });
}

TileBits causal(const Problem& p, int bq, int bk) {
  return columns(
      p, bq, bk, [](int64_t) { return 0; },
      [&](int64_t r) { return column_of(last_position(p, bq, r), bk); });
}

TileBits rows_before(const Problem& p, int bq, int bk, int64_t position) {
  return columns(
      p, bq, bk, [](int64_t) { return 0; },
      [&](int64_t r) { return p.offset + r * bq < position ? p.nk : int64_t(-1); });
}

TileBits where(const Problem& p, int bq, int bk, int64_t heads, const TileRule& rule) {
  const TileBits shape = none(p, bq, bk);
  const auto tile_of = [bk](int64_t position) {
    return (position - (bk - 1) * (position < 0)) / bk;
  };
  TileBits out(1, heads, shape.rows, shape.cols);
  for (int64_t h = 0; h < heads; ++h)
    for (int64_t r = 0; r < out.rows; ++r) {
      const int64_t first = tile_of(p.offset + r * bq), last = tile_of(last_position(p, bq, r));
      // Rows of the same own tiles are alike.
      if (r > 0 && tile_of(p.offset + (r - 1) * bq) == first &&
          tile_of(last_position(p, bq, r - 1)) == last) {
        std::copy_n(out.word(0, h, r - 1), out.words_per_row(), out.word(0, h, r));
        continue;
      }
      for (int64_t own = first; own <= last; ++own)
        for (int64_t c = 0; c < out.cols; ++c)
          if (rule(h, own, c)) out.set(0, h, r, c);
    }
  return out;
}

TileBits columns_not_above(const Problem& p, int bq, int bk, const BlockScores& values,
                           double limit) {
  const TileBits shape = none(p, bq, bk);
  TileBits out(p.batch, p.heads, shape.rows, shape.cols);
  for (int64_t b = 0; b < out.batch; ++b)
    for (int64_t h = 0; h < out.heads; ++h)
      for (int64_t r = 0; r < out.rows; ++r)
        for (int64_t c = 0; c < out.cols; ++c)
          out.set(b, h, r, c, !(values.row(b, h / p.group(), 0)[c] > limit));
  return out;
}

TileBits rows_not_above(const Problem& p, int bq, int bk, const BlockScores& values, double limit) {
  const TileBits shape = none(p, bq, bk);
  TileBits out(p.batch, p.heads, shape.rows, shape.cols);
  for (int64_t b = 0; b < out.batch; ++b)
    for (int64_t h = 0; h < out.heads; ++h)
      for (int64_t r = 0; r < out.rows; ++r)
        for (int64_t c = 0; c < out.cols; ++c)
          out.set(b, h, r, c, !(values.row(b, h, 0)[r] > limit));
  return out;
}

TileBits heads_below(const Problem& p, int bq, int bk, const BlockScores& values, double limit) {
  const TileBits shape = none(p, bq, bk);
  TileBits row(1, 1, 1, shape.cols), out(p.batch, p.heads, shape.rows, shape.cols);
  row.fill(true);
  const uint64_t* const all = row.word(0, 0, 0);
  for (int64_t b = 0; b < out.batch; ++b)
    for (int64_t h = 0; h < out.heads; ++h)
      for (int64_t r = 0; r < out.rows && values.row(b, h, 0)[0] < limit; ++r)
        std::copy(all, all + row.words_per_row(), out.word(b, h, r));
  return out;
}

TileBits moved(const TileBits& bits, int64_t cols, int64_t by) {
  TileBits out(bits.batch, bits.heads, bits.rows, cols);
  for (int64_t b = 0; b < out.batch; ++b)
    for (int64_t h = 0; h < out.heads; ++h)
      for (int64_t r = 0; r < out.rows; ++r)
        for (int64_t c = 0; c < bits.cols; ++c) out.set(b, h, r, c + by, bits.get(b, h, r, c));
  return out;
}

TileBits listed(const Problem& p, int bq, int bk, const Tensor& columns) {
  const TileBits shape = none(p, bq, bk);
  const View& v = columns.view;
  if ((v.size[0] != 1 && v.size[0] != p.batch) || (v.size[1] != 1 && v.size[1] != p.heads) ||
      v.size[2] != shape.rows || info(v.dtype).block != 1)
    throw Error(fmt::format("tile columns {}; accepted: [1|{},1|{},{},any]", v.shape(), p.batch,
                            p.heads, shape.rows));
  TileBits out(v.size[0], v.size[1], shape.rows, shape.cols);
  std::vector<double> row(size_t(v.size[3]));
  for (int64_t b = 0; b < out.batch; ++b)
    for (int64_t h = 0; h < out.heads; ++h)
      for (int64_t r = 0; r < out.rows; ++r) {
        read_row(v, b, h, r, row.data());
        for (const double c : row) {
          if (!(c >= -1 && c < double(out.cols)) || c != double(int64_t(c)))
            throw Error(fmt::format("tile column {}; accepted: whole numbers from -1 to {}", c,
                                    out.cols - 1));
          if (c >= 0) out.set(b, h, r, int64_t(c));
        }
      }
  return out;
}

TileBits given(const Problem& p, int bq, int bk, const Tensor& mask) {
  const TileBits shape = none(p, bq, bk);
  const View& v = mask.view;
  if ((v.size[0] != 1 && v.size[0] != p.batch) || (v.size[1] != 1 && v.size[1] != p.heads) ||
      v.size[2] != shape.rows || v.size[3] != shape.cols || info(v.dtype).block != 1)
    throw Error(fmt::format("tile mask {}; accepted: [1|{},1|{},{},{}] for tiles {}x{} of {} x {}",
                            v.shape(), p.batch, p.heads, shape.rows, shape.cols, bq, bk, p.nq,
                            p.nk));
  TileBits out(v.size[0], v.size[1], shape.rows, shape.cols);
  std::vector<double> row(size_t(out.cols));
  for (int64_t b = 0; b < out.batch; ++b)
    for (int64_t h = 0; h < out.heads; ++h)
      for (int64_t r = 0; r < out.rows; ++r) {
        read_row(v, b, h, r, row.data());
        for (int64_t c = 0; c < out.cols; ++c)
          if (row[c] != 0) out.set(b, h, r, c);
      }
  return out;
}

}  // namespace regard::keep
