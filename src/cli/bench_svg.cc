// The roofline of a benchmark: GFLOP/s over FLOPs a byte, both logarithmic.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cli/bench_print.h"

namespace regard::cli {
namespace {

constexpr double kLeft = 70, kTop = 60, kWidth = 640, kHeight = 520, kList = 760, kLine = 15;

struct Point {
  const BenchRow* row;
  int number;
  double x, y;  // pixels
};

// Shapes tell the groups apart, so that colour need not.
struct Style {
  const char* group;
  const char* colour;
  const char* path;  // around (0, 0)
};
constexpr Style kStyles[] = {
    {"prefill", "#0b5fa5", "M-6,0a6,6 0 1,0 12,0a6,6 0 1,0 -12,0z"},
    {"decode", "#b3400b", "M-5.5,-5.5h11v11h-11z"},
    {"tiles", "#1d7a3a", "M0,-7L7,5.5H-7z"},
    {"band", "#7a3f98", "M0,7L7,-5.5H-7z"},
    {"columns", "#8a6d00", "M0,-7.5L7.5,0L0,7.5L-7.5,0z"},
    {"small", "#444444", "M-2,-7h4v5h5v4h-5v5h-4v-5h-5v-4h5z"},
};
const Style& style_of(const std::string& group) {
  for (const Style& s : kStyles)
    if (group == s.group) return s;
  return kStyles[0];
}

class Axes {
 public:
  Axes(double x0, double x1, double y0, double y1) : x0_(x0), x1_(x1), y0_(y0), y1_(y1) {}
  double x(double v) const { return kLeft + kWidth * std::log(v / x0_) / std::log(x1_ / x0_); }
  double y(double v) const {
    return kTop + kHeight * (1 - std::log(v / y0_) / std::log(y1_ / y0_));
  }
  double x0() const { return x0_; }
  double x1() const { return x1_; }

  std::string ticks() const {
    std::string out;
    for (double v = x0_; v <= x1_ * 1.001; v *= 4)
      out += fmt::format(
          "<line class='grid' x1='{0:.1f}' x2='{0:.1f}' y1='{1}' y2='{2}'/>"
          "<text x='{0:.1f}' y='{3}' text-anchor='middle'>{4:g}</text>\n",
          x(v), kTop, kTop + kHeight, kTop + kHeight + 17, v);
    for (double v = y0_; v <= y1_ * 1.001; v *= 2)
      out += fmt::format(
          "<line class='grid' x1='{1}' x2='{2}' y1='{0:.1f}' y2='{0:.1f}'/>"
          "<text x='{3}' y='{4:.1f}' text-anchor='end'>{5:g}</text>\n",
          y(v), kLeft, kLeft + kWidth, kLeft - 6, y(v) + 4, v);
    return out;
  }

 private:
  double x0_, x1_, y0_, y1_;
};

double power_of(double base, double v, bool up) {
  const double n = std::log(v) / std::log(base);
  return std::pow(base, up ? std::ceil(n) : std::floor(n));
}

// The bandwidth's slope up to the ceiling, then flat.
std::string roof(const Axes& a, double gflops, double gbs, const char* dash, const char* name) {
  if (gflops <= 0) return "";
  const double knee = gflops / gbs;
  return fmt::format(
      "<path d='M{:.1f},{:.1f}L{:.1f},{:.1f}L{:.1f},{:.1f}' fill='none' stroke='#222' "
      "stroke-width='1.6' stroke-dasharray='{}'/>"
      "<text class='roof' x='{:.1f}' y='{:.1f}' text-anchor='end'>{} {:.0f}</text>\n",
      a.x(a.x0()), a.y(gbs * a.x0()), a.x(knee), a.y(gflops), a.x(a.x1()), a.y(gflops), dash,
      a.x(a.x1()) - 4, a.y(gflops) - 5, name, gflops);
}

// Moves numbers off each other: down a column of places beside the point.
std::string numbers(std::vector<Point> points) {
  std::sort(points.begin(), points.end(), [](auto& a, auto& b) { return a.y < b.y; });
  std::vector<std::pair<double, double>> taken;
  std::string out;
  for (const Point& p : points) {
    const std::pair<double, double> places[] = {
        {9, 4},    {-9, 4},    {9, -8},  {-9, -8},  {9, 15}, {-9, 15}, {22, 4}, {-22, 4},
        {22, -10}, {-22, -10}, {22, 16}, {-22, 16}, {36, 0}, {-36, 0}, {36, 14}};
    double x = 0, y = 0;
    for (const auto& [dx, dy] : places) {
      x = p.x + dx + (dx < 0 ? -12 : 0), y = p.y + dy;
      const bool free = std::none_of(taken.begin(), taken.end(), [&](auto& t) {
        return std::abs(t.first - x) < 15 && std::abs(t.second - y) < 11;
      });
      if (free) break;
    }
    taken.emplace_back(x, y);
    out += fmt::format("<line class='lead' x1='{:.1f}' y1='{:.1f}' x2='{:.1f}' y2='{:.1f}'/>", p.x,
                       p.y, x + 6, y - 4);
    out += fmt::format("<text class='number' x='{:.1f}' y='{:.1f}'>{}</text>\n", x, y, p.number);
  }
  return out;
}

std::string mark(const Style& s, double x, double y) {
  return fmt::format(
      "<path transform='translate({:.1f},{:.1f})' d='{}' fill='{}' fill-opacity='.85' "
      "stroke='#fff'/>",
      x, y, s.path, s.colour);
}

std::string list(const std::vector<Point>& points) {
  std::string out, group;
  double y = kTop;
  for (const Point& p : points) {
    if (p.row->group != group) {
      group = p.row->group;
      y += kLine * 1.3;
      out += mark(style_of(group), kList - 14, y - 4);
      out += fmt::format("<text class='head' x='{}' y='{:.1f}'>{}</text>\n", kList, y, group);
      y += kLine;
    }
    const auto g = p.row->measures.find("ggml");
    const std::string ggml =
        g == p.row->measures.end() ? "" : fmt::format(", {:.1f} x ggml", g->second.value);
    out += fmt::format(
        "<text class='item' x='{}' y='{:.1f}' text-anchor='end'>{}</text>"
        "<text class='item' x='{}' y='{:.1f}'>{}: {:.0f}{}</text>\n",
        kList + 18, y, p.number, kList + 26, y, p.row->problem, p.row->gflops, ggml);
    y += kLine;
  }
  return out;
}

}  // namespace

std::string roofline_svg(const BenchMachine& m, const std::vector<BenchRow>& rows) {
  const auto most = std::max_element(m.peaks.begin(), m.peaks.end(),
                                     [](auto& a, auto& b) { return a.threads < b.threads; });
  double low_x = 1, high_x = 64, low_y = most->fma_gflops, high_y = most->fma_gflops;
  std::vector<Point> points;
  for (const BenchRow& r : rows) {
    if (r.threads != most->threads || r.plan || !r.refused.empty()) continue;
    points.push_back({&r, int(points.size()) + 1, 0, 0});
    low_x = std::min(low_x, r.flops_per_byte), high_x = std::max(high_x, r.flops_per_byte);
    low_y = std::min(low_y, r.gflops), high_y = std::max(high_y, r.gflops);
  }
  high_y = std::max({high_y, most->bf16_gflops, most->int8_gops});
  const Axes a(power_of(4, low_x, false), power_of(4, high_x, true), power_of(2, low_y, false),
               power_of(2, high_y * 1.05, true));
  for (Point& p : points) p.x = a.x(p.row->flops_per_byte), p.y = a.y(p.row->gflops);
  std::string marks;
  for (const Point& p : points) marks += mark(style_of(p.row->group), p.x, p.y) + "\n";
  const double height =
      std::max(kTop + kHeight + 60, kTop + kLine * (double(points.size()) + 2.5 * 7));
  return fmt::format(
             "<svg xmlns='http://www.w3.org/2000/svg' width='1260' height='{0:.0f}' "
             "viewBox='0 0 1260 {0:.0f}' font-family='sans-serif' font-size='12' fill='#222'>"
             "<style>.grid{{stroke:#ddd}}.lead{{stroke:#999;stroke-width:.7}}.roof{{font-size:11px}"
             "}"
             ".number,.head{{font-weight:bold}}.number{{font-size:11px}}.item{{font-size:11px}}"
             "</style>\n<rect width='100%' height='100%' fill='#fff'/>\n"
             "<text x='{1}' y='24' font-size='16' font-weight='bold'>Regard on {2}, {3}, "
             "{4} threads</text>"
             "<text x='{1}' y='42'>GFLOP/s of allowed pairs over FLOPs a byte (q, k, v, out once). "
             "Lines: what the machine can do; read {5:.0f} GB/s.</text>\n",
             height, kLeft, m.cpu, m.target, most->threads, most->read_gbs) +
         a.ticks() + roof(a, most->fma_gflops, most->read_gbs, "none", "f32 FMA") +
         roof(a, most->bf16_gflops, most->read_gbs, "7 4", "bf16 pairs") +
         roof(a, most->int8_gops, most->read_gbs, "2 3", "int8 fours") +
         fmt::format(
             "<text x='{}' y='{}' text-anchor='middle'>FLOPs a byte</text>"
             "<text transform='translate(20,{}) rotate(-90)' text-anchor='middle'>GFLOP/s"
             "</text>\n",
             kLeft + kWidth / 2, kTop + kHeight + 38, kTop + kHeight / 2) +
         marks + numbers(points) + list(points) + "</svg>\n";
}

}  // namespace regard::cli
