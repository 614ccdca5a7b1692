// Leaf kernels of the numeric int8's Q K^T: one instruction, vpdpbusd, multiplies four pairs of
// 8-bit levels and adds the products to an int32. Call them only where has_dot() (isa.h) holds.
// Layer: cpu.
//
// A row is cut into blocks of 32 channels as ggml's caches are: a key is step * level with signed
// levels, a query low + step * level with unsigned ones (all 256 of them between the block's least
// and largest number). Their product over a block,
//   step_q step_k sum(level_q level_k) + low_q (step_k sum(level_k)),
// is exact in the levels. Four levels share a 32-bit word; with words for numbers the layouts are
// those of gemm-inl.h.
#pragma once
#include <cstdint>

namespace regard::cpu::int8 {

inline constexpr int kBlock = 32, kWords = kBlock / 4;  // channels and words of a block

// Blocks of one query row to levels[blocks * kWords]; step and low of block b at b * stride. A
// block with a NaN or infinity gets a NaN low.
void QuantizeQuery(const float* row, int64_t blocks, uint32_t* levels, float* step, float* low,
                   int64_t stride);
// The same of one key row less `mean` (null: nothing): levels -127 to 127; a block with a NaN or
// infinity gets a NaN step.
void QuantizeKey(const float* row, const float* mean, int64_t blocks, uint32_t* levels, float* step,
                 int64_t stride);

// sum[blocks][kKeys] = step * (sum of levels) of packed keys: panels [blocks * kWords][32].
void SumLevels(const uint32_t* keys, int64_t blocks, int vecs, const float* step, float* sum);

struct Queries {
  const uint32_t* levels;   // [blocks * kWords][rows]
  const float *step, *low;  // [blocks][rows]
  const float* shift;       // [rows]: added to the row's scores
};
struct Keys {
  const uint32_t* levels;   // panels [blocks * kWords][32]
  const float *step, *sum;  // [blocks][kKeys]
};
// s[rows][kKeys] = q k^T + shift; vecs: vectors of keys.
void ScorePanel(int rows, const Queries& q, const Keys& k, int64_t blocks, int vecs, float* s);

}  // namespace regard::cpu::int8
