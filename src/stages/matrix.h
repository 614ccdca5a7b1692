// The arithmetic under the estimators: rows as f32, products with packed keys, exponentials.
// Layer: stages. Nobody but the bodies of stages includes this.
//
// Every sum has a fixed order, so results have the same bits for any number of threads.
#pragma once
#include <cstdint>
#include <vector>

#include "regard/view.h"

namespace regard::matrix {

// Thirty-two keys side by side, a panel: line t holds channel t of them all.
inline constexpr int64_t kPanel = 32;
struct alignas(64) Line {
  float x[kPanel];
};

inline int64_t panels(int64_t keys) { return (keys + kPanel - 1) / kPanel; }

// Numbers from one row of products to the next. Odd in panels: the eight rows that multiply()
// writes at once would else fall into the same few sets of the first cache.
inline int64_t row_stride(int64_t keys) { return (panels(keys) | 1) * kPanel; }

// Tokens [first, first + count) of head (b, h) as f32 rows of size[3] numbers, one after the other.
void load_rows(const View& v, int64_t b, int64_t h, int64_t first, int64_t count, float* dst);

// kPanel rows of `depth` numbers, `count` of them real and the rest taken as zero -> one panel.
void pack_panel(const float* rows, int64_t count, int64_t depth, Line* panel);

// c[i * stride + l] = sum_t a[i * depth + t] * panel[t].x[l] for i < rows, l < kPanel, t ascending.
void multiply(const float* a, int64_t rows, int64_t depth, const Line* panel, float* c,
              int64_t stride);

// x <- cap(scale * x), cap(y) = softcap * tanh(y / softcap); softcap 0: no cap.
void scale_cap(float* x, int64_t n, float scale, float softcap);

float max_of(const float* x, int64_t n);  // -inf for n = 0; NaN is passed over

// x <- exp(x - shift); returns the sum.
float exponentials(float* x, int64_t n, float shift);

void add(float* sum, const float* x, int64_t n);  // sum[i] += x[i]

// All keys of a KV head as panels.
struct Packed {
  int64_t keys = 0, depth = 0;
  std::vector<Line> lines;  // [panels(keys)][depth]
  const Line* panel(int64_t p) const { return &lines[p * depth]; }
};
Packed pack_keys(const View& k, int64_t b, int64_t h, int threads);

}  // namespace regard::matrix
