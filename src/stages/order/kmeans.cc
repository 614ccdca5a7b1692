// Lloyd's k-means. The nearest centroid is the one with the greatest x.c - |c|^2 / 2.
#include <algorithm>
#include <limits>
#include <numeric>

#include "core/parallel.h"
#include "stages/matrix.h"
#include "stages/order.h"
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
        labels_(labels),
        best_(static_cast<size_t>(n)) {}

  void start(int64_t seed) {
    const std::vector<int64_t> first = distinct_tokens(n_, count_, seed);
    for (int64_t c = 0; c < count_; ++c)
      std::copy_n(&x_[first[c] * depth_], depth_, centroids_ + c * depth_);
  }

  // Whether any label changed.
  bool assign() {
    const std::vector<int32_t> before(labels_, labels_ + n_);
    std::fill(best_.begin(), best_.end(), -std::numeric_limits<float>::infinity());
    std::fill(labels_, labels_ + n_, 0);
    std::vector<matrix::Line> panel(static_cast<size_t>(depth_));
    constexpr int64_t kRows = 64;
    float dots[kRows * matrix::kPanel], half[matrix::kPanel];
    for (int64_t c0 = 0; c0 < count_; c0 += matrix::kPanel) {
      const int64_t live = std::min(matrix::kPanel, count_ - c0);
      matrix::pack_panel(centroids_ + c0 * depth_, live, depth_, panel.data());
      for (int64_t c = 0; c < live; ++c) {
        const float* at = centroids_ + (c0 + c) * depth_;
        half[c] = float(std::inner_product(at, at + depth_, at, 0.0) / 2);
      }
      for (int64_t i0 = 0; i0 < n_; i0 += kRows) {
        const int64_t rows = std::min(kRows, n_ - i0);
        matrix::multiply(&x_[i0 * depth_], rows, depth_, panel.data(), dots, matrix::kPanel);
        for (int64_t i = 0; i < rows; ++i)
          for (int64_t c = 0; c < live; ++c) {
            const float score = dots[i * matrix::kPanel + c] - half[c];
            if (!(score > best_[i0 + i])) continue;
            best_[i0 + i] = score;
            labels_[i0 + i] = int32_t(c0 + c);
          }
      }
    }
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
  std::vector<float> best_;
};

}  // namespace

Clusters kmeans(const Ctx& ctx, const View& x, int64_t clusters, int64_t iterations, int64_t seed) {
  const StageTimer timer(ctx, "order.kmeans");
  const int64_t batch = x.size[0], heads = x.size[1], n = x.size[2];
  Clusters out;
  out.depth = x.size[3];
  Labels& labels = out.labels;
  labels.batch = batch, labels.heads = heads, labels.n = n;
  labels.count = std::min(clusters, n);
  labels.label.assign(size_t(batch * heads * n), 0);
  out.centroids.resize(size_t(batch * heads * labels.count * out.depth));
  parallel_for(batch * heads, ctx.threads, [&](int64_t bh, int) {
    std::vector<float> tokens(size_t(n * out.depth));
    matrix::load_rows(x, bh / heads, bh % heads, 0, n, tokens.data());
    Lloyd lloyd(std::move(tokens), n, out.depth, labels.count,
                &out.centroids[bh * labels.count * out.depth], &labels.label[bh * n]);
    lloyd.start(seed);
    for (int64_t it = 0; it < iterations; ++it) {
      const bool moved = lloyd.assign();
      lloyd.update();
      if (!moved && it > 0) break;
    }
  });
  return out;
}

}  // namespace regard::order
