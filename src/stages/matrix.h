// The arithmetic under the estimators: rows as f32, products with packed keys, exponentials.
// Layer: stages. Nobody but the bodies of stages includes this.
//
// Every sum has a fixed order, so results have the same bits for any number of threads.
#pragma once
#include <cstdint>
#include <vector>

#include "regard/view.h"
#include "stages/unwritten.h"

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

void need_host(const View& v);  // throws where a stage without a GPU kernel is given a GPU's memory

// Tokens [first, first + count) of head (b, h) as f32 rows of size[3] numbers, one after the other.
void load_rows(const View& v, int64_t b, int64_t h, int64_t first, int64_t count, float* dst);

// kPanel rows of `depth` numbers, `count` of them real and the rest taken as zero -> one panel.
void pack_panel(const float* rows, int64_t count, int64_t depth, Line* panel);

// c[i * stride + l] = sum_t a[i * depth + t] * panel[t].x[l] for i < rows, l < kPanel, t ascending.
void multiply(const float* a, int64_t rows, int64_t depth, const Line* panel, float* c,
              int64_t stride);

// x <- cap(scale * x), cap(y) = softcap * tanh(y / softcap); softcap 0: no cap.
void scale_cap(float* x, int64_t n, float scale, float softcap);

float max_of(const float* x, int64_t n);             // -inf for n = 0; NaN is passed over
float scaled_max(float* x, int64_t n, float scale);  // x <- scale * x; returns max_of(x)

// Thirty-two sums, of every 32nd number from the l-th on in ascending order; then the upper half is
// added to the lower until one is left.
float sum_of(const float* x, int64_t n);

// x <- exp(x - shift) by algebra/exponential.h; returns sum_of(x).
float exponentials(float* x, int64_t n, float shift);

// Every `width` numbers by themselves: top[c] as max_of, x <- exp(x - top[c]) (a top of -inf counts
// as 0 there), sum[c] in ascending order.
void tile_exponentials(float* x, int64_t n, int64_t width, float* top, float* sum);

// sum[i] <- x[i] * factor + sum[i], rounded once
void add_scaled(float* sum, const float* x, float factor, int64_t n);

// Levels (levels.h), as 16-bit integers two by two in the bits of one number, so that rows of them
// are packed as other rows are: n numbers become level_pairs(n), zeros beyond the end.
inline int64_t level_pairs(int64_t n) { return (n + kPanel - 1) / kPanel * (kPanel / 2); }

// The levels of tokens [first, first + count) of head (b, h): token first + i's to pairs + i *
// step, their scale to scale[i * scale_step].
void load_levels(const View& v, int64_t b, int64_t h, int64_t first, int64_t count, float* pairs,
                 int64_t step, float* scale, int64_t scale_step);

// Rows of `tokens` times `pairs` pairs of levels, token by token, against a panel of the same:
// c[i][l] = the sum over t, ascending, each fused, of
//   (integer sum of token t's channels) * (a_scale[t * rows + i] * k_scale[t].x[l]).
void multiply_levels(const float* a, const float* a_scale, int64_t rows, int64_t tokens,
                     int64_t pairs, const Line* panel, const Line* k_scale, float* c,
                     int64_t stride);

void add(float* sum, const float* x, int64_t n);  // sum[i] += x[i]

// y = x[i] * factor, rounded; a[i] += y and b[i] += y
void add_to_both(float* a, float* b, const float* x, float factor, int64_t n);

// All keys of a KV head as panels.
struct Packed {
  int64_t keys = 0, depth = 0;
  std::vector<Line, Unwritten<Line>> lines;  // [panels(keys)][depth]
  const Line* panel(int64_t p) const { return &lines[p * depth]; }
};
Packed pack_keys(const View& k, int64_t b, int64_t h, int threads);

}  // namespace regard::matrix
