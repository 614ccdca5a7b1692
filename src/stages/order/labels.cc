// Tokens by label.
#include <algorithm>
#include <numeric>

#include "stages/order.h"

namespace regard::order {

std::shared_ptr<const Permutation> by_label(const Labels& labels) {
  auto out = std::make_shared<Permutation>();
  out->batch = labels.batch, out->heads = labels.heads, out->n = labels.n;
  out->token.resize(labels.label.size());
  for (int64_t b = 0; b < labels.batch; ++b)
    for (int64_t h = 0; h < labels.heads; ++h) {
      const int32_t* label = labels.row(b, h);
      const auto first = out->token.begin() + (b * labels.heads + h) * labels.n;
      std::iota(first, first + labels.n, 0u);
      std::stable_sort(first, first + labels.n,
                       [&](uint32_t a, uint32_t c) { return label[a] < label[c]; });
    }
  return out;
}

}  // namespace regard::order
