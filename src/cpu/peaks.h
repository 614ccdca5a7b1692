// What the machine can do, for benchmarks. Layer: cpu.
#pragma once
#include <string>
#include <vector>

namespace regard::cpu {

// Samples of a few milliseconds each, so that they can alternate with what they judge: on a shared
// machine only ratios within one round mean anything.
class Peaks {
 public:
  Peaks();
  double fma_gflops(int threads);  // f32, of the instruction set in use
  double read_gbs(int threads);    // from memory: 256 MiB, more than any cache here
  // Multiply-adds of narrow types counted as two operations; 0 where the machine, or the
  // instruction set in use, has none.
  double bf16_gflops(int threads);  // vdpbf16ps: pairs of bf16 into f32
  double int8_gops(int threads);    // vpdpbusd: fours of 8 bits into 32

 private:
  std::vector<float> memory_;
};

struct PeakSummary {
  int threads = 1;
  double fma_gflops = 0, bf16_gflops = 0, int8_gops = 0, read_gbs = 0;  // best of several samples
};
PeakSummary measure_peaks(Peaks& peaks, int threads);

}  // namespace regard::cpu
