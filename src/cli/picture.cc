#include "cli/picture.h"

#include <fmt/format.h>

#include <algorithm>

namespace regard::cli {
namespace {

constexpr int64_t kWide = 32, kHigh = 16;  // characters a map: twice as tall as they are wide
constexpr size_t kAcross = 3;

const char* shade(float share) {
  if (share < 0) return " ";
  if (share == 0) return "·";
  if (share < 0.25f) return "░";
  if (share < 0.75f) return "▒";
  return share < 1 ? "▓" : "█";
}

std::vector<std::string> text_map(const Plan& plan, int64_t head) {
  const Problem& p = plan.problem;
  const int64_t cell_k = std::max<int64_t>(1, (p.nk + kWide - 1) / kWide);
  const int64_t cell_q = std::max<int64_t>(1, (p.nq + kHigh - 1) / kHigh);
  const int64_t rows = (p.nq + cell_q - 1) / cell_q, cols = (p.nk + cell_k - 1) / cell_k;
  const std::vector<float> share = coverage(plan, 0, head, cell_q, cell_k);
  std::vector<std::string> lines;
  for (int64_t r = 0; r < rows; ++r) {
    std::string& line = lines.emplace_back();
    for (int64_t c = 0; c < cols; ++c) line += shade(share[size_t(r * cols + c)]);
    line += std::string(size_t(kWide - cols), ' ');
  }
  return lines;
}

}  // namespace

std::vector<double> head_densities(const Plan& plan) {
  const Cost c = cost(plan);
  std::vector<double> out;
  const double each = c.causal_pairs / double(plan.problem.heads);
  for (const double pairs : c.head_pairs) out.push_back(each > 0 ? pairs / each : 0);
  return out;
}

std::string text_maps(const Plan& plan, const std::vector<int64_t>& heads) {
  const std::vector<double> density = head_densities(plan);
  std::string out;
  const auto end_line = [&](const std::string& line) {
    out += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  };
  for (size_t first = 0; first < heads.size(); first += kAcross) {
    const size_t last = std::min(first + kAcross, heads.size());
    std::vector<std::vector<std::string>> maps;
    std::string line;
    for (size_t i = first; i < last; ++i) {
      const std::string title =
          fmt::format("head {}, density {:.4f}", heads[i], density[size_t(heads[i])]);
      line += fmt::format("  {:<{}}", title, kWide);
      maps.push_back(text_map(plan, heads[i]));
    }
    end_line(line);
    for (size_t r = 0; r < maps[0].size(); ++r) {
      line.clear();
      for (const auto& map : maps) line += "  " + map[r];
      end_line(line);
    }
    end_line("");
  }
  return out +
         "  queries down, keys across: █ all of the pairs, ▓ ▒ ░ fewer, · none, blank: not "
         "allowed\n";
}

std::string svg_sheet(const Plan& plan, const std::vector<int64_t>& heads) {
  constexpr int64_t kSize = 240, kGap = 16, kTitle = 20;
  const Problem& p = plan.problem;
  const std::vector<double> density = head_densities(plan);
  const int64_t count = int64_t(heads.size()), across = std::min<int64_t>(count, 4);
  const double tall = double(kSize) * double(p.nq) / double(std::max<int64_t>(p.nk, 1));
  const int64_t high = std::clamp<int64_t>(int64_t(tall), 8, 4 * kSize);
  const int64_t width = across * (kSize + kGap) + kGap;
  const int64_t height = (count + across - 1) / across * (high + kGap + kTitle) + kGap;
  std::string s = fmt::format(
      "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {0} {1}' width='{0}' height='{1}' "
      "font-family='sans-serif' font-size='12'><rect width='{0}' height='{1}' fill='#fff'/>",
      width, height);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t head = heads[size_t(i)];
    const int64_t x = kGap + i % across * (kSize + kGap);
    const int64_t y = kGap + i / across * (high + kGap + kTitle);
    s += fmt::format(
        "<text x='{}' y='{}'>head {}, density {:.4f}</text><svg x='{}' y='{}' width='{}' "
        "height='{}'>{}</svg>",
        x, y + 12, head, density[size_t(head)], x, y + kTitle, kSize, high, svg(plan, head, kSize));
  }
  return s + "</svg>\n";
}

}  // namespace regard::cli
