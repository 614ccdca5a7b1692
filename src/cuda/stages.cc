// Stages on a GPU: checks, memory and launches behind stages/device.h.
#include "stages/device.h"

#include <bit>

#include "cuda/stage.h"
#include "stages/lists.h"
#include "stages/units.h"

namespace regard::device {

namespace on = cuda::stages;
using on::ceil_div;
using on::Scores;
using on::Stage;

BlockScores antidiagonal(const Inputs& x, int block, int stride, void* stream) {
  const Problem& problem = x.problem;
  const int64_t per_tile = block / stride;
  if (problem.dk > 256 || per_tile > on::kMostPerTile)
    throw Error(
        fmt::format("antidiagonal: head size {}, block {}, stride {}; accepted on a GPU: up to "
                    "256, blocks of at most {} strides",
                    problem.dk, block, stride, on::kMostPerTile));
  Stage stage("antidiagonal", x, stream);
  on::Antidiagonal p;
  p.q = stage.levels(stage.q, stride), p.k = stage.levels(stage.k, stride);
  p.nq = problem.nq, p.nk = problem.nk, p.offset = problem.offset;
  p.heads = int32_t(problem.heads), p.group = int32_t(problem.group());
  p.pairs = int32_t(problem.batch * problem.heads);
  p.q_groups = int32_t(ceil_div(p.nq, stride)), p.k_groups = int32_t(ceil_div(p.nk, stride));
  p.rows = int32_t(ceil_div(p.nq, block)), p.cols = int32_t(ceil_div(p.nk, block));
  p.stride = stride, p.per_tile = int32_t(per_tile);
  p.causal = x.causal, p.scale = problem.scale / float(stride);
  const BlockScores out = stage.scores(problem.batch, problem.heads, p.rows, p.cols, &p.out);
  // As many rows of tiles at a time as their maxima and sums fit into 256 MB.
  const int64_t a_row = int64_t(p.pairs) * per_tile * p.cols;
  const int64_t rows = std::clamp<int64_t>((int64_t(256) << 20) / (8 * a_row), 1, p.rows);
  p.tiles = stage.memory<float2>(rows * a_row);
  for (int64_t row = 0; row < p.rows; row += rows) {
    p.first = int32_t(row * per_tile);
    p.groups = int32_t(std::min(rows * per_tile, p.q_groups - row * per_tile));
    on::launch_antidiagonal(p, stage.hopper_sms(), stream);
  }
  stage.launched();
  return out;
}

BlockScores pooled_means(const Inputs& x, int bq, int bk, void* stream) {
  const Problem& problem = x.problem;
  Stage stage("pooled means", x, stream);
  const auto means = [&](const on::Rows& from, int block) {
    on::Means m{from, 0, from.tokens, block, int32_t(ceil_div(from.tokens, block))};
    m.rounded = stage.memory<float>(int64_t(from.batches) * from.heads * m.blocks * from.channels);
    on::launch_means(m, stream);
    return m.rounded;
  };
  on::PooledDots p;
  p.q = means(stage.q, bq), p.k = means(stage.k, bk);
  p.nq = problem.nq, p.offset = problem.offset;
  p.group = int32_t(problem.group()), p.pairs = int32_t(problem.batch * problem.heads);
  p.rows = int32_t(ceil_div(problem.nq, bq)), p.cols = int32_t(ceil_div(problem.nk, bk));
  p.channels = int32_t(problem.dk), p.bq = bq, p.bk = bk;
  p.causal = x.causal, p.scale = problem.scale;
  const BlockScores out = stage.scores(problem.batch, problem.heads, p.rows, p.cols, &p.out);
  on::launch_pooled_dots(p, stream);
  stage.launched();
  return out;
}

std::vector<double> mean_products(const Inputs& x, int64_t keys, int64_t block, void* stream) {
  const Problem& problem = x.problem;
  const int64_t tiles = ceil_div(keys, block), count = problem.batch * problem.heads * tiles;
  if (count == 0) return {};
  Stage stage("means", x, stream);
  const auto means = [&](const on::Rows& from, int64_t first, int64_t last) {
    on::Means m{from, int32_t(first), int32_t(last), int32_t(block),
                int32_t(ceil_div(last - first, block))};
    m.exact = stage.memory<double>(int64_t(from.batches) * from.heads * m.blocks * from.channels);
    on::launch_means(m, stream);
    return m.exact;
  };
  on::MeanProducts p;
  p.q = means(stage.q, std::max<int64_t>(0, problem.nq - block), problem.nq);
  p.k = means(stage.k, 0, keys);
  p.out = stage.memory<double>(count);
  p.pairs = int32_t(problem.batch * problem.heads), p.group = int32_t(problem.group());
  p.tiles = int32_t(tiles), p.channels = int32_t(problem.dk), p.scale = problem.scale;
  on::launch_mean_products(p, stream);
  return stage.fetch(p.out, count);
}

BlockScores row_softmax(const BlockScores& scores) {
  const Scores& from = static_cast<const Scores&>(*scores.device);
  Stage stage("softmax of rows", from.memory());
  on::Softmax p{from.data(), nullptr, scores.batch * scores.heads * scores.rows, scores.cols};
  const BlockScores out = stage.scores(scores.batch, scores.heads, scores.rows, scores.cols, &p.to);
  if (p.rows > 0) on::launch_softmax(p, from.memory().stream);
  stage.launched();
  return out;
}

namespace {

// Launches the probe of the last queries. `sums`: memory for those down columns, then along
// diagonals.
on::Probe probe(Stage& stage, const Inputs& x, int last, void* stream, float* sums) {
  const Problem& problem = x.problem;
  const Score& score = x.score;
  if (score.softcap != 0 || !score.alibi.empty() || score.bias || score.key_bias ||
      x.norm.kind == NormKind::sigmoid)
    throw Error(
        "vertical slash: a soft-cap, ALiBi, bias or sigmoid norm in the probe; accepted on a GPU: "
        "the softmax of scaled products, with sinks");
  on::Probe p;
  p.q = stage.q, p.k = stage.k;
  p.nq = problem.nq, p.nk = problem.nk, p.offset = problem.offset;
  p.offsets = std::max(p.nk, p.offset + p.nq), p.line = ceil_div(p.nk, 4) * 4;
  p.group = int32_t(problem.group()), p.probes = int32_t(std::min<int64_t>(last, p.nq));
  static_assert(on::kProbePart == kProbeRows);
  p.causal = x.causal, p.scale = problem.scale;
  if (x.norm.kind == NormKind::softmax_sink)
    p.sink = stage.upload(x.norm.sink.data(), int64_t(x.norm.sink.size()));
  const int64_t pairs = problem.batch * problem.kv_heads, heads = problem.batch * problem.heads;
  p.vertical = sums, p.slash = sums + heads * p.nk;
  // As many KV heads at a time as their logits fit into 512 MB.
  const int64_t rows = int64_t(p.group) * p.probes;
  const int64_t together =
      std::clamp<int64_t>((int64_t(512) << 20) / (4 * rows * p.line), 1, pairs);
  p.logits = stage.memory<float>(together * rows * p.line);
  p.top = stage.memory<uint32_t>(together * rows), p.norms = stage.memory<float2>(together * rows);
  for (int64_t first = 0; first < pairs; first += together) {
    p.first = int32_t(first), p.count = int32_t(std::min(together, pairs - first));
    stage.zero(p.top, together * rows);
    on::launch_probe(p, stream);
  }
  return p;
}

}  // namespace

estimate::VerticalSlash vertical_slash(const Inputs& x, int last, void* stream) {
  const Problem& problem = x.problem;
  Stage stage("vertical slash", x, stream);
  const int64_t heads = problem.batch * problem.heads;
  const int64_t offsets = std::max(problem.nk, problem.offset + problem.nq);
  float* sums = nullptr;
  const BlockScores both = stage.scores(1, heads, 1, problem.nk + offsets, &sums);
  probe(stage, x, last, stream, sums);
  stage.launched();
  return {problem.batch, problem.heads, problem.nk, offsets, {}, {}, both.device};
}

void probe_tiles(const Inputs& x, int64_t keys, int64_t length, double gamma, void* stream,
                 estimate::ProbeTiles* out) {
  const Problem& problem = x.problem;
  const int64_t heads = problem.batch * problem.heads;
  Stage stage("probe by tiles", x, stream);
  const int64_t offsets = std::max(problem.nk, problem.offset + problem.nq);
  const on::Probe from =
      probe(stage, x, int(out->block), stream, stage.memory<float>(heads * (problem.nk + offsets)));
  on::ProbeTiles p;
  p.vertical = from.vertical, p.slash = from.slash;
  p.nk = problem.nk, p.offsets = from.offsets, p.keys = keys, p.length = length;
  p.heads = int32_t(heads), p.block = int32_t(out->block);
  p.columns = int32_t(out->columns), p.diagonals = int32_t(out->diagonals), p.gamma = gamma;
  const int64_t sums = heads * (out->columns + out->diagonals);
  p.sums = stage.memory<double>(sums);
  p.crossings = stage.memory<units::Crossing>(2 * heads);
  on::launch_probe_tiles(p, stream);
  const std::vector<double> found = stage.fetch(p.sums, sums);
  out->vertical.assign(found.begin(), found.begin() + heads * out->columns);
  out->slash.assign(found.begin() + heads * out->columns, found.end());
  if (!(gamma > 0)) return;
  const std::vector<units::Crossing> crossings = stage.fetch(p.crossings, 2 * heads);
  for (int64_t h = 0; h < heads; ++h) {
    out->vertical_tokens[h] = units::fewest(crossings[2 * h], keys, gamma);
    out->slash_tokens[h] = units::fewest(crossings[2 * h + 1], length, gamma);
  }
}

bool selects(const BlockScores& scores, const Selector& how) {
  return how.scope == Selector::Scope::row && !how.heads && scores.cols <= on::kMostSelected;
}

TileBits select(const BlockScores& scores, const Selector& how) {
  const Scores& from = static_cast<const Scores&>(*scores.device);
  const int64_t rows = scores.batch * scores.heads * scores.rows;
  if (rows == 0) return {scores.batch, scores.heads, scores.rows, scores.cols};
  Stage stage("select", from.memory());
  on::Select p;
  p.scores = from.data();
  p.batch = scores.batch, p.heads = scores.heads, p.rows = scores.rows;
  p.cols = int32_t(scores.cols), p.words = int32_t(ceil_div(scores.cols, 64));
  p.size = int32_t(std::max<uint64_t>(on::kLeastSelected, std::bit_ceil(uint64_t(scores.cols))));
  p.cut = how.cut == Selector::Cut::top_k      ? on::Select::top_k
          : how.cut == Selector::Cut::coverage ? on::Select::coverage
                                               : on::Select::threshold;
  p.keep_crossing = how.keep_crossing, p.forced_counts = how.forced_counts;
  p.ceil = how.round == Selector::Round::ceil;
  p.amount = how.amount, p.extra = how.extra;
  p.min_count = how.min_count, p.max_count = how.max_count;
  if (how.amounts) p.amounts = stage.upload(how.amounts->data(), rows);
  if (const TileBits* f = how.forced) {
    p.forced = stage.bits(*f);
    p.forced_batch = f->batch, p.forced_heads = f->heads;
  }
  const TileBits out = stage.bits(scores.batch, scores.heads, scores.rows, scores.cols, &p.out);
  on::launch_select(p, from.memory().stream);
  stage.launched();
  return out;
}

TileBits stripes(const Inputs& x, const lists::TileStripes& kept, void* stream) {
  const Problem& problem = x.problem;
  Stage stage("stripes of tiles", x.q, stream);
  on::Stripes p;
  p.columns = stage.upload(kept.columns.data(), int64_t(kept.columns.size()));
  p.turned = stage.upload(kept.turned.data(), int64_t(kept.turned.size()));
  p.words = kept.words, p.turned_words = kept.turned_words;
  p.nq = problem.nq, p.offset = problem.offset, p.block = kept.block, p.diagonals = kept.diagonals;
  p.heads = problem.batch * problem.heads;
  p.rows = ceil_div(problem.nq, kept.block), p.cols = ceil_div(problem.nk, kept.block);
  const TileBits out = stage.bits(problem.batch, problem.heads, p.rows, p.cols, &p.out);
  on::launch_stripes(p, stream);
  stage.launched();
  return out;
}

TileBits put(const TileBits& bits, const View& beside, void* stream) {
  Stage stage("tile bits", beside, stream);
  uint64_t* to = nullptr;
  const TileBits out = stage.bits(bits.batch, bits.heads, bits.rows, bits.cols, &to);
  if (const int64_t words = bits.batch * bits.heads * bits.rows * bits.words_per_row())
    cuda::check(cudaMemcpyAsync(to, bits.word(0, 0, 0), size_t(words) * 8, cudaMemcpyHostToDevice,
                                cudaStream_t(stream)),
                "copy tile bits");
  return out;
}

}  // namespace regard::device
