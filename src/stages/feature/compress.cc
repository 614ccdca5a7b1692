// Keys and values that stand for several tokens each. See features.h.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/parallel.h"
#include "regard/status.h"
#include "stages/features.h"
#include "stages/matrix.h"
#include "stages/rotate.h"

namespace regard::features {
namespace {

double activated(double x, const std::string& act) {
  if (act == "relu") return x > 0 ? x : x == x ? 0 : x;  // NaN stays
  if (act == "gelu") return x / 2 * (1 + std::erf(x / std::sqrt(2.0)));
  return x / (1 + std::exp(-x));
}

void need_shape(const char* what, const char* part, const View& v, int64_t heads, int64_t in,
                int64_t out, bool bias) {
  const bool rows = v.size[2] == in || (bias && v.size[2] == in + 1);
  if (v.size[0] != 1 || (v.size[1] != 1 && v.size[1] != heads) || !rows ||
      (out > 0 && v.size[3] != out) || info(v.dtype).block != 1)
    throw Error(fmt::format("{}_{} {}; accepted: [1,1|{},{},{}]", what, part, v.shape(), heads,
                            bias ? fmt::format("{} or {}", in, in + 1) : fmt::format("{}", in),
                            out > 0 ? fmt::format("{}", out) : "any"));
}

// The weights of a layer as doubles, for one head.
class Layer {
 public:
  Layer(const View& w, int64_t h) : in_(w.size[2]), out_(w.size[3]), w_(size_t(in_ * out_)) {
    for (int64_t r = 0; r < in_; ++r)
      read_row(w, 0, w.size[1] == 1 ? 0 : h, r, &w_[size_t(r * out_)]);
  }
  std::vector<double> run(const std::vector<double>& x) const {
    std::vector<double> y(size_t(out_), 0.0);
    for (int64_t r = 0; r < in_; ++r) {
      const double factor = r < int64_t(x.size()) ? x[size_t(r)] : 1;  // the last row is the bias
      for (int64_t c = 0; c < out_; ++c) y[size_t(c)] += factor * w_[size_t(r * out_ + c)];
    }
    return y;
  }

 private:
  int64_t in_, out_;
  std::vector<double> w_;
};

}  // namespace

Tensor compress(const Ctx& ctx, const char* what, const View& x, const Compressor& how) {
  const StageTimer timer(ctx, "features.compress");
  const int64_t heads = x.size[1], n = x.size[2], d = x.size[3], width = how.width;
  if (width < 1 || how.stride < 1)
    throw Error(
        fmt::format("{}: {} tokens every {}; accepted: positive numbers", what, width, how.stride));
  const View &position = how.position.view, &first = how.first.view, &second = how.second.view;
  if (!first && (position || second))
    throw Error(fmt::format("{}_{} without {}_first", what, second ? "second" : "position", what));
  if (position) need_shape(what, "position", position, heads, width, d, false);
  if (first) need_shape(what, "first", first, heads, width * d, second ? 0 : d, true);
  if (second) need_shape(what, "second", second, heads, first.size[3], d, true);
  const int64_t count = n < width ? 0 : (n - width) / how.stride + 1;
  Tensor out = make_tensor(DType::f32, {x.size[0], heads, std::max<int64_t>(1, count), d});
  std::vector<Layer> layers;
  for (int64_t h = 0; h < heads; ++h)
    for (const View* w : {&first, &second})
      if (*w) layers.emplace_back(*w, h);
  const size_t depth = layers.size() / size_t(heads);
  parallel_for(x.size[0] * heads * count, ctx.threads, [&](int64_t item, int) {
    const int64_t j = item % count, h = item / count % heads, b = item / count / heads;
    std::vector<float> rows(size_t(width * d));
    matrix::load_rows(x, b, h, j * how.stride, width, rows.data());
    for (int64_t t = 0; t < width && how.rope > 0; ++t)
      rotate(&rows[size_t(t * d)], d, -double(j * how.stride + t), how.rope);
    std::vector<double> y(size_t(d), 0.0);
    if (!first) {
      for (int64_t t = 0; t < width; ++t)
        for (int64_t c = 0; c < d; ++c) y[size_t(c)] += rows[size_t(t * d + c)];
      for (double& value : y) value /= double(width);
    } else {
      y.assign(rows.begin(), rows.end());
      std::vector<double> added(size_t(d), 0.0);
      for (int64_t t = 0; t < width && position; ++t) {
        read_row(position, 0, position.size[1] == 1 ? 0 : h, t, added.data());
        for (int64_t c = 0; c < d; ++c) y[size_t(t * d + c)] += added[size_t(c)];
      }
      y = layers[size_t(h) * depth].run(y);
      if (second) {
        for (double& value : y) value = activated(value, how.act);
        y = layers[size_t(h) * depth + 1].run(y);
      }
    }
    float* const to = reinterpret_cast<float*>(out.view.at(b, h, j));
    std::copy(y.begin(), y.end(), to);
    if (how.rope > 0) rotate(to, d, double(j * how.stride), how.rope);
  });
  return out;
}

}  // namespace regard::features
