// The last step of a row: sink, division, cast, or the Partial as it is. Layer: cpu.
#pragma once
#include "cpu/call.h"

namespace regard::cpu {

// acc: [dv], divided in place; `head` in natural units.
void finish_row(const Call& c, int64_t b, int64_t h, int64_t i, PartialHead<float> head,
                float* acc);

// Room for the Partials of splits: slot-major, as Items counts them.
struct Slots {
  float* acc = nullptr;  // [slots, dv]
  PartialHead<float>* head = nullptr;
};
// Merges the splits of a row tile in their order, row by row, and finishes.
void merge_splits(const Call& c, const RowTile& t, const Slots& slots);

}  // namespace regard::cpu
