// Feature maps and learned maps. See features.h.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "regard/status.h"
#include "stages/features.h"
#include "stages/random.h"

namespace regard::features {

Weight random(const Problem& p, int64_t count, int64_t seed) {
  if (count == 0) count = int64_t(double(p.dk) * std::log(double(p.dk)));
  const int64_t half = std::max<int64_t>(1, count / 2);
  Weight out{WeightKind::random, make_tensor(DType::f32, {1, 1, 2 * half, p.dk})};
  for (int64_t n = 0; n < half; ++n)
    for (int64_t c = 0; c < p.dk; ++c) {
      const float w = float(random_normal(seed, 0, n, c));
      reinterpret_cast<float*>(out.directions.view.at(0, 0, n))[c] = w;
      reinterpret_cast<float*>(out.directions.view.at(0, 0, half + n))[c] = -w;
    }
  return out;
}

Weight given(const Problem& p, const Tensor& directions) {
  const View& v = directions.view;
  if (v.size[0] != 1 || v.size[1] != 1 || v.size[2] < 1 || v.size[3] != p.dk ||
      info(v.dtype).block != 1)
    throw Error(fmt::format("directions {}; accepted: [1,1,any,{}]", v.shape(), p.dk));
  Weight out{WeightKind::random, make_tensor(DType::f32, {1, 1, 2 * v.size[2], p.dk})};
  for (int64_t n = 0; n < v.size[2]; ++n) {
    float* const w = reinterpret_cast<float*>(out.directions.view.at(0, 0, n));
    float* const opposite = reinterpret_cast<float*>(out.directions.view.at(0, 0, v.size[2] + n));
    read_row(v, 0, 0, n, w);
    for (int64_t c = 0; c < p.dk; ++c) opposite[c] = -w[c];
  }
  return out;
}

Weight named(const std::string& name) {
  if (name == "softmax") return {WeightKind::softmax, {}};
  if (name == "elu") return {WeightKind::elu, {}};
  if (name == "relu") return {WeightKind::relu, {}};
  throw Error(fmt::format("features '{}'; accepted: softmax, elu, relu", name));
}

Tensor output_map(const Problem& p, const Tensor& weight, const Tensor& bias) {
  const View& w = weight.view;
  if (w.size[0] != 1 || (w.size[1] != 1 && w.size[1] != p.kv_heads) || w.size[2] != p.dv ||
      w.size[3] != p.dv || info(w.dtype).block != 1)
    throw Error(
        fmt::format("projection {}; accepted: [1,1|{},{},{}]", w.shape(), p.kv_heads, p.dv, p.dv));
  if (bias.view.numel() != p.dv || bias.view.size[3] != p.dv)
    throw Error(fmt::format("bias {}; accepted: [1,1,1,{}]", bias.view.shape(), p.dv));
  Tensor out = make_tensor(DType::f32, {1, w.size[1], p.dv + 1, p.dv});
  std::vector<float> row(static_cast<size_t>(p.dv));
  for (int64_t h = 0; h < w.size[1]; ++h) {
    for (int64_t c = 0; c < p.dv; ++c) {
      read_row(w, 0, h, c, row.data());
      for (int64_t r = 0; r < p.dv; ++r)
        reinterpret_cast<float*>(out.view.at(0, h, r))[c] = row[size_t(r)];
    }
    read_row(bias.view, 0, 0, 0, reinterpret_cast<float*>(out.view.at(0, h, p.dv)));
  }
  return out;
}

}  // namespace regard::features
