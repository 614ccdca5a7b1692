// The frontier's page: one self-contained HTML file. Its parts are in src/cli/report/. Layer: cli.
#pragma once
#include <string>
#include <vector>

#include "cli/frontier.h"

namespace regard::cli {

// `lines`: of rows.jsonl. `settings`: what was asked for, done or not.
std::string frontier_page(const std::vector<Json>& lines, const std::vector<Setting>& settings);

}  // namespace regard::cli
