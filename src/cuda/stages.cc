// Stages on a GPU: checks, memory and launches behind stages/device.h.
#include "stages/device.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <memory>

#include "cuda/cuda.h"
#include "cuda/device.h"
#include "cuda/stages/params.h"
#include "regard/status.h"
#include "stages/levels.h"
#include "stages/units.h"

namespace regard::device {
namespace {

using cuda::check;
namespace on = cuda::stages;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

on::Rows rows_of(const char* stage, const View& v) {
  if (v.device != Device::cuda)
    throw Error(
        fmt::format("{}: {} is on the CPU, q on a GPU; accepted: one device", stage, v.shape()));
  if ((v.dtype != DType::f16 && v.dtype != DType::bf16) || (v.size[3] > 1 && v.stride[3] != 2))
    throw Error(
        fmt::format("{}: {}, channels {} bytes apart; accepted on a GPU: f16 or bf16, side by side",
                    stage, v.shape(), v.stride[3]));
  on::Rows r;
  r.data = static_cast<const char*>(v.data);
  r.batch = v.stride[0], r.head = v.stride[1], r.token = v.stride[2];
  r.batches = int32_t(v.size[0]), r.heads = int32_t(v.size[1]), r.tokens = int32_t(v.size[2]);
  r.channels = int32_t(v.size[3]), r.bf16 = v.dtype == DType::bf16;
  return r;
}

// Memory of a stage, given back in the order of its stream.
struct Memory {
  void* at = nullptr;
  void* stream = nullptr;
  int device = 0;
  ~Memory() {
    if (!at) return;
    const cuda::OnDevice here(device);
    cudaFreeAsync(at, cudaStream_t(stream));
  }
};

template <class T>
std::vector<T> brought(const T* from, int64_t count, void* stream, const char* name) {
  check(cudaPeekAtLastError(), name);
  std::vector<T> out(static_cast<size_t>(count));
  check(cudaMemcpyAsync(out.data(), from, out.size() * sizeof(T), cudaMemcpyDeviceToHost,
                        cudaStream_t(stream)),
        "copy scores");
  check(cudaStreamSynchronize(cudaStream_t(stream)), name);
  return out;
}

class Scores : public DeviceScores {
 public:
  Scores(std::shared_ptr<Memory> memory, int64_t count)
      : memory_(std::move(memory)), count_(count) {}
  std::vector<float> fetch() const override {
    const cuda::OnDevice here(memory_->device);
    return brought(data(), count_, memory_->stream, "scores");
  }
  const float* data() const { return static_cast<const float*>(memory_->at); }
  const Memory& memory() const { return *memory_; }

 private:
  std::shared_ptr<Memory> memory_;
  int64_t count_;
};

// One stage's device memory and its results' way back, in the order of a stream.
class Stage {
 public:
  Stage(const char* name, const Inputs& x, void* stream) : Stage(name, x.q, stream) {
    q = rows_of(name, x.q), k = rows_of(name, x.k);
    if (q.bf16 != k.bf16 || cuda::device_of(x.k.data) != device_)
      throw Error(fmt::format("{}: q {} and k {}; accepted: one type, one GPU", name, x.q.shape(),
                              x.k.shape()));
  }
  Stage(const char* name, const View& v, void* stream)
      : name_(name), device_(device_of(v)), here_(device_), stream_(stream) {}
  Stage(const char* name, const Memory& beside)
      : name_(name), device_(beside.device), here_(device_), stream_(beside.stream) {}

  template <class T>
  T* memory(int64_t count) {
    owned_.push_back(take(count * int64_t(sizeof(T))));
    return static_cast<T*>(owned_.back()->at);
  }
  // What is returned after the stage.
  BlockScores scores(int64_t batch, int64_t heads, int64_t rows, int64_t cols, float** out) {
    const int64_t count = batch * heads * rows * cols;
    std::shared_ptr<Memory> memory = take(count * 4);
    *out = static_cast<float*>(memory->at);
    return {batch, heads, rows, cols, {}, std::make_shared<Scores>(std::move(memory), count)};
  }
  void launched() const { check(cudaPeekAtLastError(), name_); }
  template <class T>
  void zero(T* at, int64_t count) {
    check(cudaMemsetAsync(at, 0, size_t(count) * sizeof(T), cudaStream_t(stream_)), "clear memory");
  }
  template <class T>
  const T* upload(const T* from, int64_t count) {
    T* const to = memory<T>(count);
    check(cudaMemcpyAsync(to, from, size_t(count) * sizeof(T), cudaMemcpyHostToDevice,
                          cudaStream_t(stream_)),
          "copy to a stage");
    return to;
  }
  template <class T>
  std::vector<T> fetch(const T* from, int64_t count) {
    return brought(from, count, stream_, name_);
  }
  on::Levels levels(const on::Rows& from, int stride) {
    const int64_t heads = int64_t(from.batches) * from.heads;
    on::Levels to;
    to.padded = int32_t(ceil_div(from.channels, on::kChunk) * on::kChunk);
    const int64_t groups = ceil_div(from.tokens, stride);
    to.stride = stride, to.tokens = int32_t(groups * stride);
    to.groups = int32_t(ceil_div(groups, 4) * 4);
    to.x = memory<uint16_t>(heads * to.tokens * to.padded);
    to.scale = memory<float>(heads * stride * to.groups);
    on::launch_levels(from, to, stream_);
    return to;
  }

  bool hopper() const { return cuda::device_info(device_).major == 9; }

  on::Rows q, k;

 private:
  static int device_of(const View& v) {
    if (const std::string why = cuda::absence(); !why.empty()) throw Error("cuda: " + why);
    return cuda::device_of(v.data);
  }

  std::shared_ptr<Memory> take(int64_t bytes) {
    auto out = std::make_shared<Memory>(Memory{nullptr, stream_, device_});
    check(cudaMallocFromPoolAsync(&out->at, size_t(std::max<int64_t>(1, bytes)),
                                  cuda::pool(device_), cudaStream_t(stream_)),
          "allocate memory of a stage");
    return out;
  }

  const char* const name_;
  const int device_;
  const cuda::OnDevice here_;
  void* const stream_;
  std::vector<std::shared_ptr<Memory>> owned_;
};

}  // namespace

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
    on::launch_antidiagonal(p, stage.hopper(), stream);
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

// Launches the probe of the last queries; its results stay.
on::Probe probe(Stage& stage, const Inputs& x, int last, void* stream) {
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
  p.part = kProbeRows, p.causal = x.causal, p.scale = problem.scale;
  if (x.norm.kind == NormKind::softmax_sink)
    p.sink = stage.upload(x.norm.sink.data(), int64_t(x.norm.sink.size()));
  const int64_t pairs = problem.batch * problem.kv_heads, heads = problem.batch * problem.heads;
  p.vertical = stage.memory<float>(heads * p.nk), p.slash = stage.memory<float>(heads * p.offsets);
  // As many KV heads at a time as their logits fit into 512 MB.
  const int64_t rows = int64_t(p.group) * p.probes;
  const int64_t together =
      std::clamp<int64_t>((int64_t(512) << 20) / (4 * rows * p.line), 1, pairs);
  p.logits = stage.memory<float>(together * rows * p.line);
  p.top = stage.memory<uint32_t>(together * rows), p.inverse = stage.memory<float>(together * rows);
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
  const on::Probe p = probe(stage, x, last, stream);
  const int64_t heads = problem.batch * problem.heads;
  estimate::VerticalSlash out{problem.batch, problem.heads, p.nk, p.offsets, {}, {}};
  out.vertical = stage.fetch(p.vertical, heads * p.nk);
  out.slash = stage.fetch(p.slash, heads * p.offsets);
  return out;
}

void probe_tiles(const Inputs& x, int64_t keys, int64_t length, double gamma, void* stream,
                 estimate::ProbeTiles* out) {
  const Problem& problem = x.problem;
  const int64_t heads = problem.batch * problem.heads;
  Stage stage("probe by tiles", x, stream);
  const on::Probe from = probe(stage, x, int(out->block), stream);
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
  TileBits out(scores.batch, scores.heads, scores.rows, scores.cols);
  const int64_t rows = scores.batch * scores.heads * scores.rows, words = out.words_per_row();
  if (rows == 0) return out;
  Stage stage("select", from.memory());
  on::Select p;
  p.scores = from.data();
  p.batch = scores.batch, p.heads = scores.heads, p.rows = scores.rows;
  p.cols = int32_t(scores.cols), p.words = int32_t(words);
  p.size = int32_t(std::bit_ceil(uint64_t(scores.cols)));
  p.cut = how.cut == Selector::Cut::top_k      ? on::Select::top_k
          : how.cut == Selector::Cut::coverage ? on::Select::coverage
                                               : on::Select::threshold;
  p.keep_crossing = how.keep_crossing, p.forced_counts = how.forced_counts;
  p.ceil = how.round == Selector::Round::ceil;
  p.amount = how.amount, p.extra = how.extra;
  p.min_count = how.min_count, p.max_count = how.max_count;
  if (how.amounts) p.amounts = stage.upload(how.amounts->data(), rows);
  if (const TileBits* f = how.forced) {
    p.forced = stage.upload(f->word(0, 0, 0), f->batch * f->heads * f->rows * words);
    p.forced_batch = f->batch, p.forced_heads = f->heads;
  }
  p.out = stage.memory<uint64_t>(rows * words);
  on::launch_select(p, from.memory().stream);
  const std::vector<uint64_t> bits = stage.fetch(p.out, rows * words);
  std::copy(bits.begin(), bits.end(), out.word(0, 0, 0));
  return out;
}

}  // namespace regard::device
