// What the machine can do, for benchmarks: multiply-add rates and read bandwidth. Layer: cpu.
#pragma once

namespace regard::cpu {

struct Peaks {
  double gflops = 0;       // f32 FMA of the instruction set in use
  double bf16_gflops = 0;  // pairs of bf16 (vdpbf16ps); 0: none
  double int8_gops = 0;    // quads of int8 (vpdpbusd); 0: none
  double read_gbs = 0;     // from memory, summing 512 MiB
};
Peaks measure_peaks(int threads);  // takes about a second

}  // namespace regard::cpu
