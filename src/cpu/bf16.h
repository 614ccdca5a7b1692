// Leaf kernels of the numeric bf16: one instruction, vdpbf16ps, multiplies two pairs and adds both
// products to an f32. Call them only where has_dot() (isa.h) holds. Layer: cpu.
//
// A pair is two neighbours along the summed axis (channels in Q K^T, keys in P V), rounded to bf16
// and held in one 32-bit word, the first in the low half. With words for numbers the layouts are
// those of gemm-inl.h at half the depth.
#pragma once
#include <cstdint>

#include "regard/view.h"

namespace regard::cpu::bf16 {

using Pair = uint32_t;

// n numbers at src (f32, f16 or bf16, neighbouring) to pairs; whole vectors of 16 pairs are
// written, zeros past n.
void Round(DType type, const char* src, int64_t n, Pair* dst);

// Two value rows of n numbers, interleaved into their row of each panel of 32 columns: columns
// [32 c, 32 c + 32) at dst + c * panel_stride; zeros past n. odd null: zeros. Returns whether every
// rounded number is finite.
bool InterleaveValues(DType type, const char* even, const char* odd, int64_t n, Pair* dst,
                      int64_t panel_stride);

// s[rows][kKeys] = q k^T. q: [depth][rows]; k: panels [depth][32]; vecs: vectors of keys.
void ScorePanel(int rows, const Pair* q, const Pair* k, int64_t depth, int vecs, float* s);

// Weights s[rows][kKeys] to pairs p[rows][kKeys / 2], and sum[rows][16] += the rounded weights.
void RoundWeights(int rows, const float* s, int vecs, Pair* p, float* sum);

// o[rows][width] += p v. p: [rows][kKeys / 2]; v: panels [kKeys / 2][32]; vecs: of columns.
void ValuePanel(int rows, const Pair* p, const Pair* v, int64_t pairs, int vecs, float* o,
                int64_t width);

}  // namespace regard::cpu::bf16
