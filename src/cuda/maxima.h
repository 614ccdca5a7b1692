// When a row's maximum follows its scores. The final division makes any shift exact, but a weight
// above 1 is rounded where the largest one, 1, is not. Such an error is lost among the others while
// the weight is at most a share of the row's sum so far, and at most kMostWeight. Until then the
// maximum stays where it is. Layer: cuda.
#pragma once

namespace regard::cuda {

constexpr float kFloatShare = 0.0625f;  // where the output is f32
constexpr float kRoundedShare = 0.5f;   // where its own rounding hides more of a weight's
constexpr float kMostWeight = 256;

}  // namespace regard::cuda
