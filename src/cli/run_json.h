// The results as JSON. Layer: cli.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/run.h"

namespace regard::cli {

// {model, text, tokens, threads, machine, rows: [...]} and what else was measured; numbers that are
// not known are null.
nlohmann::ordered_json results_json(const RunInfo& info, const std::vector<Row>& rows);

// Text for a file or a page: names and paths may hold bytes that are not UTF-8.
std::string dump(const nlohmann::ordered_json& j, int indent = -1);

}  // namespace regard::cli
