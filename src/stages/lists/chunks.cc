// Chunks of any tokens, chosen query by query. See lists.h.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/parallel.h"
#include "regard/status.h"
#include "stages/lists.h"
#include "stages/matrix.h"
#include "stages/rows.h"

namespace regard::lists {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

// Mean keys of all chunks of one head.
std::vector<float> mean_keys(const Inputs& x, const Chunks& chunks, int64_t b, int64_t kv) {
  const int64_t depth = x.problem.dk;
  std::vector<float> out(chunks.keys.size() * size_t(depth)), row(static_cast<size_t>(depth));
  for (size_t c = 0; c < chunks.keys.size(); ++c) {
    std::vector<double> sum(size_t(depth), 0.0);
    int64_t count = 0;
    for (const Range& r : chunks.keys[c])
      for (int64_t j = r.begin; j < r.end; ++j, ++count) {
        matrix::load_rows(x.k, b, kv, j, 1, row.data());
        for (int64_t t = 0; t < depth; ++t) sum[t] += row[t];
      }
    for (int64_t t = 0; t < depth; ++t) out[c * depth + t] = float(sum[t] / double(count));
  }
  return out;
}

// x <- (x - min) / (max - min) over finite numbers; 0 where all are equal.
void spread(float* x, int64_t n) {
  float low = kInf, high = -kInf;
  for (int64_t i = 0; i < n; ++i)
    if (std::isfinite(x[i])) low = std::min(low, x[i]), high = std::max(high, x[i]);
  for (int64_t i = 0; i < n; ++i) {
    if (std::isfinite(x[i])) x[i] = high > low ? (x[i] - low) / (high - low) : 0;
    if (x[i] == kInf) x[i] = 1;
  }
}

}  // namespace

Chunks grid_chunks(const Problem& p, std::array<int64_t, 3> grid, std::array<int64_t, 3> box) {
  if (grid[0] == 0) grid = {p.nk, 1, 1};
  if (grid[0] * grid[1] * grid[2] != p.nk)
    throw Error(fmt::format("grid {} x {} x {}: {} tokens; accepted: a grid of all {} keys",
                            grid[0], grid[1], grid[2], grid[0] * grid[1] * grid[2], p.nk));
  std::array<int64_t, 3> boxes;
  for (int a = 0; a < 3; ++a) {
    box[a] = box[a] == 0 ? grid[a] : box[a];
    boxes[a] = (grid[a] + box[a] - 1) / box[a];
  }
  Chunks out;
  out.keys.resize(size_t(boxes[0] * boxes[1] * boxes[2]));
  out.of.resize(size_t(p.nk));
  for (int64_t j = 0; j < p.nk; ++j) {
    const int64_t t = j / (grid[1] * grid[2]), y = j / grid[2] % grid[1], z = j % grid[2];
    const int64_t c = (t / box[0] * boxes[1] + y / box[1]) * boxes[2] + z / box[2];
    out.of[j] = c;
    Ranges& keys = out.keys[c];
    if (!keys.empty() && keys.back().end == j)
      ++keys.back().end;
    else
      keys.push_back({j, j + 1});
  }
  return out;
}

BlockScores chunk_gates(const Ctx& ctx, const Inputs& x, const Chunks& chunks,
                        Selector::Scope scope) {
  const StageTimer timer(ctx, "estimate.chunk_gates");
  const Problem& p = x.problem;
  need_one_sequence(p, "chunk gates");
  const int64_t n = int64_t(chunks.keys.size());
  BlockScores out{p.batch, p.heads, p.nq, n, {}};
  out.s.assign(size_t(p.batch * p.heads * p.nq * n), -kInf);
  parallel_for(p.batch * p.kv_heads, ctx.threads, [&](int64_t item, int) {
    const int64_t b = item / p.kv_heads, kv = item % p.kv_heads;
    const std::vector<float> keys = mean_keys(x, chunks, b, kv);
    std::vector<float> queries(size_t(p.nq * p.dk)), dots(size_t(p.nq * matrix::kPanel));
    std::vector<matrix::Line> panel(size_t(p.dk));
    for (int64_t h = kv * p.group(); h < (kv + 1) * p.group(); ++h) {
      matrix::load_rows(x.q, b, h, 0, p.nq, queries.data());
      for (int64_t c0 = 0; c0 < n; c0 += matrix::kPanel) {
        const int64_t count = std::min(matrix::kPanel, n - c0);
        matrix::pack_panel(&keys[c0 * p.dk], count, p.dk, panel.data());
        matrix::multiply(queries.data(), p.nq, p.dk, panel.data(), dots.data(), matrix::kPanel);
        for (int64_t i = 0; i < p.nq; ++i)
          for (int64_t c = c0; c < c0 + count; ++c)
            if (!x.causal || chunks.keys[c].front().begin <= i + p.offset)
              out.row(b, h, i)[c] = dots[i * matrix::kPanel + c - c0];
      }
    }
  });
  const int64_t size = scope == Selector::Scope::row    ? n
                       : scope == Selector::Scope::head ? n * p.nq
                                                        : int64_t(out.s.size());
  for (int64_t first = 0; first < int64_t(out.s.size()); first += size) spread(&out.s[first], size);
  return out;
}

TileBits own_chunks(const Problem& p, const Chunks& chunks) {
  TileBits out(1, 1, p.nq, int64_t(chunks.keys.size()));
  for (int64_t i = std::max<int64_t>(0, -p.offset); i < p.nq; ++i)
    out.set(0, 0, i, chunks.of[std::min(i + p.offset, p.nk - 1)]);
  return out;
}

namespace {

constexpr int64_t kTile = 64;

// Whether all chunks are made of whole tiles of kTile keys; the sequence's last one may be short.
bool of_whole_tiles(const Chunks& chunks, int64_t nk) {
  for (const Ranges& keys : chunks.keys)
    for (const Range& r : keys)
      if (r.begin % kTile != 0 || (r.end % kTile != 0 && r.end != nk)) return false;
  return true;
}

// The tiles of every query by itself, and those that all queries of a tile row read whole apart.
Plan by_tiles(const Ctx& ctx, const Inputs& x, const Chunks& chunks, const TileBits& kept) {
  const StageTimer timer(ctx, "lists.by_tiles");
  const Problem& p = x.problem;
  const int64_t rows = (p.nq + kTile - 1) / kTile, cols = (p.nk + kTile - 1) / kTile;
  std::vector<int64_t> chunk_of;  // of each tile
  for (int64_t c = 0; c < cols; ++c) chunk_of.push_back(chunks.of[size_t(c * kTile)]);
  TileBits whole(kept.batch, kept.heads, rows, cols), single(kept.batch, kept.heads, p.nq, cols);
  parallel_for(kept.batch * kept.heads * rows, ctx.threads, [&](int64_t item, int) {
    const int64_t b = item / rows / kept.heads, h = item / rows % kept.heads, r = item % rows;
    const int64_t first = r * kTile, last = std::min(first + kTile, p.nq);
    for (int64_t c = 0; c < cols; ++c) {
      const auto sees = [&](int64_t i) { return !x.causal || c * kTile <= i + p.offset; };
      const auto reads = [&](int64_t i) { return sees(i) && kept.get(b, h, i, chunk_of[c]); };
      if (!sees(last - 1)) break;
      bool all = true;
      for (int64_t i = first; i < last && all; ++i) all = !sees(i) || reads(i);
      if (all) whole.set(b, h, r, c);
      for (int64_t i = first; i < last && !all; ++i)
        if (reads(i)) single.set(b, h, i, c);
    }
  });
  Plan out = Plan::tiles(p, kTile, kTile, whole);
  return single.count() == 0 ? out : Plan::same({out, Plan::tiles(p, 1, kTile, single)});
}

}  // namespace

Plan by_chunk(const Ctx& ctx, const Inputs& x, const Chunks& chunks, const TileBits& kept) {
  if (of_whole_tiles(chunks, x.problem.nk)) return by_tiles(ctx, x, chunks, kept);
  return by_row(ctx, x, kept.batch, kept.heads,
                [&](int64_t b, int64_t h, int64_t position, Ranges* out) {
                  for (size_t c = 0; c < chunks.keys.size(); ++c)
                    if (kept.get(b, h, position - x.problem.offset, int64_t(c)))
                      out->insert(out->end(), chunks.keys[c].begin(), chunks.keys[c].end());
                });
}

}  // namespace regard::lists
