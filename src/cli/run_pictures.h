// Maps for the report: where exact attention looks, what a method's plan keeps. Layer: cli.
//
// Taken off the clock, for a few layers; exact attention's in a pass of its own.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "control.h"

namespace regard::cli {

// Lower triangle of a grid of cell x cell tokens, one byte a cell, row by row: cell (r, c), c <= r,
// is byte r (r + 1) / 2 + c.
using CellMap = std::vector<uint8_t>;

struct HeadPicture {
  CellMap map;
  double mass_kept =
      -1;  // share of exact attention inside the plan, mean over queries; -1: unknown
};

// How a share of attention becomes a byte: 0 below 1e-6, else 1..255 evenly in its logarithm.
inline constexpr double kMassFloor = 1e-6;
uint8_t mass_byte(double share);

class Pictures {
 public:
  Pictures(int64_t tokens, int64_t ubatch, std::vector<int> layers, int64_t heads, int threads,
           int64_t cells = kCells);

  // Side of the cells for a document: a power of two that gives at most `cells` of them.
  static constexpr int64_t kCells = 128;
  static int64_t cell_for(int64_t tokens, int64_t cells = kCells);

  void add_exact(const ggml::Node& node);   // attention mass, mean over the cell's queries
  void add_method(const ggml::Node& node);  // share of the cell's causal pairs the plan reads
  std::vector<std::vector<HeadPicture>> finish() const;  // [layer of layers()][head]

  const std::vector<int>& layers() const { return layers_; }
  int64_t cell() const { return cell_; }
  int64_t grid() const { return grid_; }

 private:
  struct Sums {
    std::vector<float> value, weight;  // [grid, grid]
    double kept = 0, queries = 0;      // of mass_kept
    bool unknown = false;              // mass kept could not be computed
  };
  Sums* at(int layer, int64_t head);
  void add_kept_mass(const ggml::Node& node);

  int64_t tokens_, step_, cell_, grid_, heads_;
  int threads_;
  bool is_mass_ = false;
  std::vector<int> layers_;
  std::vector<Sums> sums_;  // [layers, heads]
};

}  // namespace regard::cli
