// Stage bodies for tensors in a GPU's memory. Layer: stages. Bodies: src/cuda/stages, or src/absent
// where CUDA is off. Nobody but the stages of the same names includes this.
//
// Each does the arithmetic of its namesake in the same order, so that scores, and the plans made of
// them, have the same bits on both (docs/decisions/2026-11-22-stages-on-the-device.md). They run
// after the work on `stream` (a cudaStream_t). Scores and bits of tiles stay on the device; what
// else comes back is waited for. Each throws Error for what it does not take; stages that are not
// here refuse GPU tensors (matrix::load_rows).
#pragma once
#include "stages/estimate.h"
#include "stages/lists.h"
#include "stages/select.h"

namespace regard {

inline constexpr int kProbeRows = 16;  // queries whose sums the probe adds up by themselves

namespace device {

BlockScores antidiagonal(const Inputs& x, int block, int stride, void* stream);

BlockScores pooled_means(const Inputs& x, int bq, int bk, void* stream);

// Whether select() below takes this: rows that compete by themselves, of at most 8192 tiles.
bool selects(const BlockScores& scores, const Selector& how);
TileBits select(const BlockScores& scores, const Selector& how);

// The tiles of rows of `block` queries in kept columns and diagonals of tiles, as
// lists::vertical_slash_tiles spreads them.
TileBits stripes(const Inputs& x, const lists::TileStripes& kept, void* stream);

// Bits made on the host, on the GPU that holds `beside`.
TileBits put(const TileBits& bits, const View& beside, void* stream);

// softmax only: no soft-cap, ALiBi, bias or sigmoid; with sinks. The sums stay there.
estimate::VerticalSlash vertical_slash(const Inputs& x, int last, void* stream);

// lists::vertical_slash from such sums; whether it takes the problem's keys (at most 2^18).
bool lists_slashes(const Problem& p);
lists::TilesAndColumns vertical_slash(const Problem& p, const estimate::VerticalSlash& s,
                                      int64_t columns, int64_t diagonals);

// The sums, and the tokens where gamma is above 0, of estimate::probe_tiles.
void probe_tiles(const Inputs& x, int64_t keys, int64_t length, double gamma, void* stream,
                 estimate::ProbeTiles* out);

// Scaled products of the mean of the last `block` queries with the means of keys [0, keys) in
// blocks, f64: [batch, heads, ceil(keys / block)].
std::vector<double> mean_products(const Inputs& x, int64_t keys, int64_t block, void* stream);

BlockScores row_softmax(const BlockScores& scores);

}  // namespace device
}  // namespace regard
