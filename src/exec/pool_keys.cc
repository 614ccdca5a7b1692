#include "exec/pool_keys.h"

#include <algorithm>
#include <cmath>

#include "core/parallel.h"

namespace regard {
namespace {

// Mean of rows [first, last) of one head.
void mean_row(const View& x, int64_t b, int64_t h, int64_t first, int64_t last, float* out) {
  std::vector<float> row(size_t(x.size[3]));
  std::vector<double> sum(row.size(), 0.0);
  for (int64_t t = first; t < last; ++t) {
    read_row(x, b, h, t, row.data());
    for (size_t c = 0; c < row.size(); ++c) sum[c] += row[c];
  }
  for (size_t c = 0; c < row.size(); ++c) out[c] = float(sum[c] / double(last - first));
}

}  // namespace

void pool_keys(const Problem& p, const Branch& br, const View& k, const View& v, int threads,
               Tensor* pooled_k, Tensor* pooled_v, Tensor* key_bias) {
  const int64_t blocks = source_keys(p, br), block = br.source.block;
  *pooled_k = make_tensor(DType::f32, {p.batch, p.kv_heads, blocks, p.dk});
  *pooled_v = make_tensor(DType::f32, {p.batch, p.kv_heads, blocks, p.dv});
  *key_bias = make_tensor(DType::f32, {p.batch, p.kv_heads, 1, blocks});
  const View& own = br.score.key_bias.view;
  parallel_for(p.batch * p.kv_heads, threads, [&](int64_t bh, int) {
    const int64_t b = bh / p.kv_heads, h = bh % p.kv_heads;
    float* bias = reinterpret_cast<float*>(key_bias->view.at(b, h, 0));
    if (own) read_row(own, own.size[0] == 1 ? 0 : b, own.size[1] == 1 ? 0 : h, 0, bias);
    for (int64_t j = 0; j < blocks; ++j) {
      const int64_t first = j * block, last = std::min(first + block, p.nk);
      mean_row(k, b, h, first, last, reinterpret_cast<float*>(pooled_k->view.at(b, h, j)));
      mean_row(v, b, h, first, last, reinterpret_cast<float*>(pooled_v->view.at(b, h, j)));
      bias[j] += std::log(float(last - first));
    }
  });
}

Tensor map_values(const Source& source, const View& v, int threads) {
  const View& map = source.value_map.view;
  const int64_t dv = v.size[3];
  Tensor out = make_tensor(DType::f32, {v.size[0], v.size[1], v.size[2], dv});
  parallel_for(v.size[0] * v.size[1] * v.size[2], threads, [&](int64_t n, int) {
    const int64_t j = n % v.size[2], h = n / v.size[2] % v.size[1], b = n / v.size[2] / v.size[1];
    std::vector<float> x(size_t(dv + 32)), m(size_t(dv + 32));
    read_row(v, b, h, j, x.data());
    float* to = reinterpret_cast<float*>(out.view.at(b, h, j));
    read_row(map, 0, map.size[1] == 1 ? 0 : h, dv, to);
    for (int64_t r = 0; r < dv; ++r) {
      read_row(map, 0, map.size[1] == 1 ? 0 : h, r, m.data());
      for (int64_t c = 0; c < dv; ++c) to[c] += x[size_t(r)] * m[size_t(c)];
    }
  });
  return out;
}

}  // namespace regard
