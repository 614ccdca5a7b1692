#include "cli/frontier_report.h"

#include <nlohmann/json.hpp>

#include "cli/run_json.h"
#include "cli/run_report.h"
#include "frontier_parts.h"  // generated from src/cli/report/

namespace regard::cli {

// Pictures are shown for the longest length only: all of them would make a page of many megabytes.
std::string frontier_page(const std::vector<Json>& lines, const std::vector<Setting>& settings) {
  Json data = {{"rows", Json::array()}, {"planted", Json::array()}, {"settings", Json::array()}};
  int64_t longest = 0;
  for (const Json& j : lines) longest = std::max(longest, j.value("length", int64_t(0)));
  for (const Json& j : lines) {
    const std::string kind = j.value("kind", "");
    if (kind == "row") {
      data["rows"].push_back(j);
      if (j["length"] != longest) data["rows"].back().erase("pictures");
    } else if (kind == "planted") {
      data["planted"].push_back(j);
    } else {
      data[kind] = j;  // frontier, model, best
    }
  }
  for (const Setting& s : settings)
    data["settings"].push_back({{"name", s.spec},
                                {"method", s.method},
                                {"family", s.family},
                                {"title", s.title},
                                {"not_on_model", s.not_on_model},
                                {"not_at_all", s.not_at_all}});
  return fill_page(
      kFrontierHtml, kFrontierCss, kFrontierJs,
      data.contains("model") ? data["model"]["description"].get<std::string>() : "planted inputs",
      data);
}

}  // namespace regard::cli
