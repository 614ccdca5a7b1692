// Scores that know nothing: for patterns with random tiles.
#include "stages/random.h"

#include "stages/estimate.h"
#include "stages/rows.h"

namespace regard::estimate {

BlockScores random(const Problem& p, int bq, int bk, int64_t seed) {
  need_one_sequence(p, "random tiles");
  BlockScores out;
  out.batch = 1;
  out.heads = p.heads;
  out.rows = (p.nq + bq - 1) / bq;
  out.cols = (p.nk + bk - 1) / bk;
  out.s.resize(size_t(out.heads * out.rows * out.cols));
  for (int64_t h = 0; h < out.heads; ++h)
    for (int64_t r = 0; r < out.rows; ++r) {
      const int64_t position = p.offset + r * bq;
      const int64_t own = (position - (bk - 1) * (position < 0)) / bk;
      for (int64_t c = 0; c < out.cols; ++c)
        out.row(0, h, r)[c] = float(random_uniform(seed, h, own, c));
    }
  return out;
}

}  // namespace regard::estimate
