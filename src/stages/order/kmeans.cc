// Lloyd's k-means. The nearest centroid is the one with the greatest x.c - |c|^2 / 2.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "core/parallel.h"
#include "regard/status.h"
#include "stages/matrix.h"
#include "stages/order.h"
#include "stages/order/project.h"
#include "stages/random.h"

namespace regard::order {
namespace {

std::vector<int64_t> distinct_tokens(int64_t n, int64_t count, int64_t seed) {
  std::vector<uint64_t> draw;
  for (int64_t t = 0; t < n; ++t) draw.push_back(random_bits(seed, 0, 0, t));
  std::vector<int64_t> ids(static_cast<size_t>(n));
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(), [&](int64_t a, int64_t b) { return draw[a] < draw[b]; });
  ids.resize(size_t(count));
  return ids;
}

// One head.
class Lloyd {
 public:
  Lloyd(std::vector<float> tokens, int64_t n, int64_t depth, int64_t count, float* centroids,
        int32_t* labels)
      : x_(std::move(tokens)),
        n_(n),
        depth_(depth),
        count_(count),
        centroids_(centroids),
        labels_(labels) {}

  void start(const View& given, int64_t b, int64_t h) {
    matrix::load_rows(given, given.size[0] == 1 ? 0 : b, given.size[1] == 1 ? 0 : h, 0, count_,
                      centroids_);
  }
  void start(int64_t seed) {
    const std::vector<int64_t> first = distinct_tokens(n_, count_, seed);
    for (int64_t c = 0; c < count_; ++c)
      std::copy_n(&x_[first[c] * depth_], depth_, centroids_ + c * depth_);
  }

  // Whether any label changed.
  bool assign(int threads) {
    const std::vector<int32_t> before(labels_, labels_ + n_);
    std::vector<matrix::Line> panels(size_t(matrix::panels(count_) * depth_));
    std::vector<float> half(static_cast<size_t>(count_));
    for (int64_t c0 = 0; c0 < count_; c0 += matrix::kPanel)
      matrix::pack_panel(centroids_ + c0 * depth_, std::min(matrix::kPanel, count_ - c0), depth_,
                         &panels[c0 / matrix::kPanel * depth_]);
    for (int64_t c = 0; c < count_; ++c) {
      const float* at = centroids_ + c * depth_;
      half[c] = float(std::inner_product(at, at + depth_, at, 0.0) / 2);
    }
    constexpr int64_t kRows = 64;
    parallel_for((n_ + kRows - 1) / kRows, threads, [&](int64_t part, int) {
      const int64_t i0 = part * kRows, rows = std::min(kRows, n_ - i0);
      const int64_t stride = matrix::row_stride(count_);
      std::vector<float> score(size_t(kRows * stride));
      for (int64_t n = 0; n < matrix::panels(count_); ++n)
        matrix::multiply(&x_[i0 * depth_], rows, depth_, &panels[n * depth_],
                         &score[n * matrix::kPanel], stride);
      for (int64_t i = 0; i < rows; ++i) {
        float* s = &score[i * stride];
        for (int64_t c = 0; c < count_; ++c) s[c] -= half[c];
        const int64_t best = index_of(s, count_, matrix::max_of(s, count_));
        labels_[i0 + i] = int32_t(best % count_);  // 0 where all are NaN
      }
    });
    return !std::equal(before.begin(), before.end(), labels_);
  }

  void update() {
    std::vector<double> sum(size_t(count_ * depth_), 0.0);
    std::vector<int64_t> tokens(size_t(count_), 0);
    for (int64_t i = 0; i < n_; ++i) {
      ++tokens[labels_[i]];
      for (int64_t t = 0; t < depth_; ++t) sum[labels_[i] * depth_ + t] += x_[i * depth_ + t];
    }
    for (int64_t c = 0; c < count_; ++c)
      for (int64_t t = 0; t < depth_ && tokens[c] > 0; ++t)
        centroids_[c * depth_ + t] = float(sum[c * depth_ + t] / double(tokens[c]));
  }

 private:
  const std::vector<float> x_;
  const int64_t n_, depth_, count_;
  float* const centroids_;
  int32_t* const labels_;
};

}  // namespace

Clusters kmeans(const Ctx& ctx, const View& x, int64_t clusters, int64_t iterations, int64_t seed,
                const Tensor& first) {
  const StageTimer timer(ctx, "order.kmeans");
  const View& given = first.view;
  if (given && ((given.size[0] != 1 && given.size[0] != x.size[0]) ||
                (given.size[1] != 1 && given.size[1] != x.size[1]) || given.size[2] < 1 ||
                given.size[3] != x.size[3] || info(given.dtype).block != 1))
    throw Error(fmt::format("k-means: first centroids {}; accepted: [1|{},1|{},any,{}]",
                            given.shape(), x.size[0], x.size[1], x.size[3]));
  const int64_t batch = x.size[0], heads = x.size[1], n = x.size[2];
  Clusters out;
  out.depth = x.size[3];
  Labels& labels = out.labels;
  labels.batch = batch, labels.heads = heads, labels.n = n;
  labels.count = given ? given.size[2] : std::min(clusters, n);
  labels.label.assign(size_t(batch * heads * n), 0);
  out.centroids.resize(size_t(batch * heads * labels.count * out.depth));
  parallel_for(batch * heads, ctx.threads, [&](int64_t bh, int) {
    std::vector<float> tokens(size_t(n * out.depth));
    matrix::load_rows(x, bh / heads, bh % heads, 0, n, tokens.data());
    Lloyd lloyd(std::move(tokens), n, out.depth, labels.count,
                &out.centroids[bh * labels.count * out.depth], &labels.label[bh * n]);
    given ? lloyd.start(given, bh / heads, bh % heads) : lloyd.start(seed);
    for (int64_t it = 0; it < iterations; ++it) {
      const bool moved = lloyd.assign(ctx.threads);
      lloyd.update();
      if (!moved && it > 0) break;
    }
  });
  return out;
}

}  // namespace regard::order
