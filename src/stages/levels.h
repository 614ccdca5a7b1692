// Levels: rows of channels as integers whose products add up without rounding. Layer: stages.
//
// A row x of channels becomes round(x * kLength / |x|) with the scale |x| / kLength. Rows of levels
// are no longer than 4018 (kLength, half a level for each of 1024 channels, and what the even ones
// beyond 2048 are off), so by Cauchy and Schwarz every partial sum of a product of two rows is an
// integer below 2^24: f32 adds it exactly in any order, as tensor cores do, and they are exact in
// f16 as well, since levels beyond 2048 are even. A logit moves by about
// 1e-4 |q| |k| / sqrt(d): less than rounding it to bf16 would, more than rounding it to f16.
//
// |x|^2 is summed as matrix::sum_of does, squares fused. Rows shorter than 1e-15 are 0; a row that
// holds no finite numbers, or too large ones to square, has the scale NaN.
#pragma once

namespace regard::levels {

inline constexpr float kLength = 4000, kExact = 2048;
inline constexpr float kLeastSquare = 1e-30f, kMostSquare = 3e38f;

}  // namespace regard::levels
