#include "cli/run_report.h"

#include <algorithm>
#include <cmath>

#include "cli/run_json.h"
#include "report_parts.h"  // generated from src/cli/report/

namespace regard::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kPictureBytes = 2'700'000;  // 3.6 MB as base64, so that the page stays near 4 MB

// To four decimals: the page prints no more.
Json rounded(double x) {
  return std::isfinite(x) ? Json(std::round(x * 1e4) / 1e4) : Json(nullptr);
}

Json density_json(const PairCounts& pairs) {
  Json layers = Json::array();
  for (size_t l = 0; l < pairs.kept.size(); ++l) {
    Json row = Json::array();
    for (size_t h = 0; h < pairs.kept[l].size(); ++h)
      row.push_back(rounded(pairs.at(int64_t(l), int64_t(h))));
    layers.push_back(row);
  }
  return layers;
}

Json maps_json(const std::vector<std::vector<HeadPicture>>& layers) {
  Json out = Json::array();
  for (const auto& heads : layers) {
    Json row = Json::array();
    for (const HeadPicture& p : heads) {
      Json head = {{"map", base64(p.map)}};
      if (p.mass_kept >= 0) head["mass"] = rounded(p.mass_kept);
      row.push_back(head);
    }
    out.push_back(row);
  }
  return out;
}

void replace(std::string& page, const std::string& mark, const std::string& by) {
  page.replace(page.find(mark), mark.size(), by);
}

std::string escape_html(const std::string& s) {
  std::string out;
  for (const char c : s) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else
      out += c;
  }
  return out;
}

}  // namespace

std::string base64(const CellMap& bytes) {
  static const char* digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t n = std::min<size_t>(3, bytes.size() - i);
    uint32_t v = 0;
    for (size_t j = 0; j < 3; ++j) v = v << 8 | (j < n ? bytes[i + j] : 0);
    for (size_t j = 0; j < 4; ++j) out += j <= n ? digits[v >> (18 - 6 * j) & 63] : '=';
  }
  return out;
}

std::string fill_page(const char* html, const char* css, const char* js, const std::string& title,
                      const Json& data) {
  std::string json;
  for (const char c : dump(data)) {
    if (c == '/' && !json.empty() && json.back() == '<') json += '\\';  // "</" would end the script
    json += c;
  }
  std::string page = html;
  replace(page, "{{title}}", escape_html(title));
  replace(page, "{{css}}", css);
  replace(page, "{{js}}", js);
  replace(page, "{{data}}", json);
  return page;
}

int64_t affordable_layers(int64_t grid, int64_t heads, int64_t methods) {
  const int64_t layer = grid * (grid + 1) / 2 * heads * (1 + methods);
  return std::max<int64_t>(1, kPictureBytes / layer);
}

std::string report_page(const RunInfo& info, const std::vector<Row>& rows,
                        const PictureSet& pictures) {
  Json data = results_json(info, rows);
  size_t i = 0;
  for (const Row& r : rows)
    if (r.done()) data["rows"][i++]["density_by_head"] = density_json(r.pairs);
  Json& p = data["pictures"];
  p["cell"] = pictures.cell;
  p["grid"] = pictures.grid;
  p["mass_floor"] = kMassFloor;
  p["layers"] = pictures.layers;
  p["exact"] = maps_json(pictures.exact);
  p["methods"] = Json::array();
  for (const auto& [name, maps] : pictures.methods)
    p["methods"].push_back({{"name", name}, {"maps", maps_json(maps)}});

  return fill_page(kReportHtml, kReportCss, kReportJs, info.model_desc, data);
}

}  // namespace regard::cli
