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

// Number and index in one word: ascending words are descending numbers, then ascending indices. Not
// for NaN.
uint64_t word_of(float x, uint32_t index);

// The k best of n numbers, the lower index first among equals: all above `least`, and those equal
// to it up to index `last`. NaN and -inf are not among them, so they may be fewer.
struct Cut {
  float least;
  int64_t last;
};
Cut best(const float* x, int64_t n, int64_t k);

// Appends their indices, ascending; sets their bits.
void append(const float* x, int64_t n, const Cut& cut, std::vector<uint32_t>* out);
void set_bits(const float* x, int64_t n, const Cut& cut, uint64_t* words);

}  // namespace regard::scan
