// The report: one self-contained HTML page. Its parts are in src/cli/report/. Layer: cli.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "cli/run.h"
#include "cli/run_pictures.h"

namespace regard::cli {

struct PictureSet {
  int64_t cell = 0, grid = 0;
  std::vector<int> layers;
  std::vector<std::vector<HeadPicture>> exact;  // [layer][head]
  std::vector<std::pair<std::string, std::vector<std::vector<HeadPicture>>>>
      methods;  // by row name
};

std::string base64(const CellMap& bytes);

// A page of src/cli/report with its marks {{title}}, {{css}}, {{js}}, {{data}} filled in.
std::string fill_page(const char* html, const char* css, const char* js, const std::string& title,
                      const nlohmann::ordered_json& data);

// Most layers whose pictures fit the page's budget of bytes; at least one.
int64_t affordable_layers(int64_t grid, int64_t heads, int64_t methods);
std::string report_page(const RunInfo& info, const std::vector<Row>& rows,
                        const PictureSet& pictures);

}  // namespace regard::cli
