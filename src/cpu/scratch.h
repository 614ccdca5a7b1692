// Per-thread memory of one item, kept by the thread between calls. Layer: cpu.
#pragma once
#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

namespace regard::cpu {

// Sized for the widest vectors (16 floats, panels of 32): about (dk + dv) * (rows + 64 keys)
// floats. Contents are whatever the last item left; every float is initialised.
struct Scratch {
  float* queries;   // row panels [dk][panel rows], or rows [dk rounded up to a vector]
  float* keys;      // panels [dk][2 vectors]
  float* values;    // panels [64][2 vectors]
  float* decoded;   // one vector of decoded rows of K or V
  float* scores;    // [panel rows, or kFewRows][64]
  float* key_bias;  // [64]
  float* acc;       // [rows][dv rounded up to a vector]
  float* max;       // [rows]
  float* sum;       // [rows][vector]

  // rows: of the largest row tile. The memory belongs to the calling thread.
  Scratch(int64_t rows, int64_t dk, int64_t dv) {
    rows += 12;  // the last panel may be padded
    const int64_t dk_up = (dk + 31) / 32 * 32, dv_up = (dv + 31) / 32 * 32;
    const std::pair<float**, int64_t> parts[] = {
        {&queries, rows * dk_up}, {&keys, 64 * dk_up},
        {&values, 64 * dv_up},    {&decoded, 16 * std::max(dk_up, dv_up)},
        {&scores, 16 * 64},       {&key_bias, 64},
        {&acc, rows * dv_up},     {&max, rows},
        {&sum, rows * 16}};
    int64_t need = 0;
    for (const auto& [p, n] : parts) need += (n + 15) / 16 * 16;
    static thread_local std::vector<float> memory;
    if (int64_t(memory.size()) < need + 16) memory.assign(need + 16, 0.0f);
    const uintptr_t start = reinterpret_cast<uintptr_t>(memory.data());
    float* next = reinterpret_cast<float*>((start + 63) / 64 * 64);
    for (const auto& [p, n] : parts) {
      *p = next;
      next += (n + 15) / 16 * 16;
    }
  }
};

}  // namespace regard::cpu
