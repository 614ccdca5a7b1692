#include "cpu/finish.h"

#include <cmath>
#include <cstring>

namespace regard::cpu {

void finish_row(const Call& c, int64_t b, int64_t h, int64_t i, PartialHead<float> head,
                float* acc) {
  const Problem& p = c.w.problem;
  if (!c.w.finish) {
    const int64_t row = (b * p.heads + h) * p.nq + i;
    c.w.partial.max[row] = head.max;
    c.w.partial.sum[row] = head.sum;
    std::memcpy(c.w.partial.acc + row * p.dv, acc, p.dv * sizeof(float));
    return;
  }
  float factor = 1;
  if (c.norm.kind == NormKind::softmax_sink) factor = add_sink(head, c.norm.sink[h]);
  if (!c.sigmoid) factor = head.sum == 0 ? 0 : factor / head.sum;
  for (int64_t d = 0; d < p.dv; ++d) acc[d] *= factor;
  const View& out = c.w.out.out;
  if (out.dtype == DType::f32 && (out.stride[3] == 4 || p.dv == 1)) {
    std::memcpy(out.at(b, h, i), acc, p.dv * sizeof(float));
  } else {
    write_row(out, b, h, i, acc);
  }
  if (c.w.out.lse) {
    const float l = lse(head);
    write_row(c.w.out.lse, b, h, i, &l);
  }
}

void merge_splits(const Call& c, const RowTile& t, const Slots& slots) {
  const int64_t dv = c.w.problem.dv;
  for (int64_t r = 0; r < t.rows(); ++r) {
    PartialHead<float>& head = slots.head[t.first_slot + r];
    float* acc = slots.acc + (t.first_slot + r) * dv;
    for (int64_t s = 1; s < t.splits; ++s) {
      const int64_t slot = t.first_slot + s * t.rows() + r;
      merge(head, acc, slots.head[slot], slots.acc + slot * dv, dv);
    }
    finish_row(c, t.b, t.h0 + r % t.heads, t.query(r), head, acc);
  }
}

}  // namespace regard::cpu
