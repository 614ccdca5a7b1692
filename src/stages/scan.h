// Passes over a row of numbers. Layer: stages. Nobody but the bodies of stages includes this.
#pragma once
#include <cstdint>
#include <vector>

namespace regard::scan {

// Of the finite ones of n numbers: how many, their mean and their (population) deviation.
struct Moments {
  double count = 0, mean = 0, deviation = 0;
};
Moments moments(const float* x, int64_t n);

// Appends the indices of the numbers that are `least` or more, ascending; NaN is not.
void at_least(const float* x, int64_t n, double least, std::vector<uint32_t>* out);

}  // namespace regard::scan
