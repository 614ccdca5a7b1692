// What the machine can do, for benchmarks: f32 FMA rate and read bandwidth. Layer: cpu.
#pragma once

namespace regard::cpu {

struct Peaks {
  double gflops = 0;    // of the instruction set in use
  double read_gbs = 0;  // from memory, summing 512 MiB
};
Peaks measure_peaks(int threads);  // takes about a second

}  // namespace regard::cpu
