// Stage bodies for tensors in a GPU's memory. Layer: stages. Bodies: src/cuda/stages, or src/absent
// where CUDA is off. Nobody but the stages of the same names includes this.
//
// Each does the arithmetic of its namesake in the same order, so that scores, and the plans made of
// them, have the same bits on both (docs/decisions/2026-11-22-stages-on-the-device.md). They run
// after the work on `stream` (a cudaStream_t). Scores of tiles stay on the device; what else comes
// back is waited for. Each throws Error for what it does not take; stages that are not here refuse
// GPU tensors (matrix::load_rows).
#pragma once
#include "stages/estimate.h"
#include "stages/select.h"

namespace regard {

inline constexpr int kProbeRows = 16;  // queries whose sums the probe adds up by themselves

namespace device {

BlockScores antidiagonal(const Inputs& x, int block, int stride, void* stream);

BlockScores pooled_means(const Inputs& x, int bq, int bk, void* stream);

// Whether select() below takes this: rows that compete by themselves, of at most 8192 tiles.
bool selects(const BlockScores& scores, const Selector& how);
TileBits select(const BlockScores& scores, const Selector& how);

// softmax only: no soft-cap, ALiBi, bias or sigmoid; with sinks.
estimate::VerticalSlash vertical_slash(const Inputs& x, int last, void* stream);

// Means of tokens [first, last) of every head in blocks of `block`, the last one over the tokens it
// has: [size[0], size[1], blocks, size[3]], sums in f64 in order.
std::vector<double> means(const View& v, int64_t first, int64_t last, int64_t block, void* stream);

}  // namespace device
}  // namespace regard
