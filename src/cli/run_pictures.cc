#include "cli/run_pictures.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "cli/run_interrupt.h"
#include "cli/run_mass.h"
#include "stages/estimate.h"

namespace regard::cli {

uint8_t mass_byte(double share) {
  if (!(share > kMassFloor)) return 0;
  const double t = 1 - std::log(share) / std::log(kMassFloor);  // 0 at the floor, 1 at 1
  return uint8_t(std::clamp(std::lround(1 + 254 * t), 1l, 255l));
}

int64_t Pictures::cell_for(int64_t tokens, int64_t cells) {
  int64_t cell = 8;
  while (tokens > cells * cell) cell *= 2;
  return cell;
}

Pictures::Pictures(int64_t tokens, int64_t ubatch, std::vector<int> layers, int64_t heads,
                   int threads, int64_t cells)
    : tokens_(tokens),
      cell_(cell_for(tokens, cells)),
      grid_((tokens + cell_ - 1) / cell_),
      heads_(heads),
      threads_(threads),
      layers_(std::move(layers)),
      sums_(layers_.size() * size_t(heads)) {
  // Strips start at multiples of ubatch: rows of this many queries never straddle two cells.
  step_ = std::gcd(ubatch, cell_);
  for (Sums& s : sums_) {
    s.value.assign(size_t(grid_ * grid_), 0);
    s.weight.assign(size_t(grid_ * grid_), 0);
  }
}

Pictures::Sums* Pictures::at(int layer, int64_t head) {
  const auto it = std::find(layers_.begin(), layers_.end(), layer);
  if (it == layers_.end() || head >= heads_) return nullptr;
  return &sums_[size_t((it - layers_.begin()) * heads_ + head)];
}

void Pictures::add_exact(const ggml::Node& node) {
  is_mass_ = true;
  if (!at(node.layer, 0) || !node.inputs || interrupted()) return;
  Ctx ctx{threads_, nullptr};
  const BlockScores mass = estimate::block_mass(ctx, *node.inputs, int(step_), int(cell_));
  for (int64_t h = 0; h < std::min(heads_, mass.heads); ++h) {
    Sums& s = *at(node.layer, h);
    for (int64_t r = 0; r < mass.rows; ++r) {
      const int64_t row = (node.offset + r * step_) / cell_;
      const float queries = float(std::min(step_, node.nq - r * step_));
      for (int64_t c = 0; c < std::min(mass.cols, row + 1); ++c) {
        s.value[size_t(row * grid_ + c)] += mass.row(0, h, r)[c];
        s.weight[size_t(row * grid_ + c)] += queries;
      }
    }
  }
}

void Pictures::add_method(const ggml::Node& node) {
  if (!at(node.layer, 0) || !node.plan || !node.inputs || interrupted()) return;
  for (int64_t h = 0; h < std::min(heads_, node.plan->problem.heads); ++h) {
    Sums& s = *at(node.layer, h);
    const std::vector<float> kept = coverage(*node.plan, 0, h, step_, cell_);
    const int64_t cols = (node.plan->problem.nk + cell_ - 1) / cell_;
    for (int64_t r = 0; r * cols < int64_t(kept.size()); ++r) {
      const int64_t first = node.offset + r * step_;
      const int64_t queries = std::min(step_, node.nq - r * step_);
      const int64_t row = first / cell_;
      for (int64_t c = 0; c < std::min(cols, row + 1); ++c) {
        const float share = kept[size_t(r * cols + c)];
        if (share < 0) continue;  // exact attention reads nothing here
        // Causal pairs of these queries with the cell's keys.
        double pairs = 0;
        for (int64_t i = first; i < first + queries; ++i)
          pairs += double(std::clamp<int64_t>(i + 1 - c * cell_, 0, cell_));
        s.value[size_t(row * grid_ + c)] += float(share * pairs);
        s.weight[size_t(row * grid_ + c)] += float(pairs);
      }
    }
  }
  add_kept_mass(node);
}

void Pictures::add_kept_mass(const ggml::Node& node) {
  const Problem& p = node.plan->problem;
  const std::vector<double> kept = mass_kept(*node.plan, *node.inputs, threads_);
  for (int64_t h = 0; h < std::min(heads_, p.heads); ++h) {
    Sums& s = *at(node.layer, h);
    s.unknown |= kept.empty();
    if (s.unknown) continue;
    s.kept += kept[size_t(h)] * double(p.nq);
    s.queries += double(p.nq);
  }
}

std::vector<std::vector<HeadPicture>> Pictures::finish() const {
  std::vector<std::vector<HeadPicture>> out(layers_.size());
  for (size_t i = 0; i < sums_.size(); ++i) {
    const Sums& s = sums_[i];
    HeadPicture p;
    p.map.reserve(size_t(grid_ * (grid_ + 1) / 2));
    for (int64_t r = 0; r < grid_; ++r) {
      for (int64_t c = 0; c <= r; ++c) {
        const float w = s.weight[size_t(r * grid_ + c)], v = s.value[size_t(r * grid_ + c)];
        const double share = w > 0 ? double(v) / w : 0;
        // A kept share rounds up, so that a single column of tokens still shows.
        p.map.push_back(is_mass_ ? mass_byte(share)
                                 : uint8_t(std::ceil(255 * std::min(1.0, share) - 1e-3)));
      }
    }
    if (!s.unknown && s.queries > 0) p.mass_kept = s.kept / s.queries;
    out[i / size_t(heads_)].push_back(std::move(p));
  }
  return out;
}

}  // namespace regard::cli
