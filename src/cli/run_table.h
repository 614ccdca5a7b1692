// The table that regard run prints. Layer: cli.
#pragma once
#include <string>
#include <vector>

#include "cli/run.h"

namespace regard::cli {

// Rows without times are left out; at most 120 columns. Under it: where methods ran exactly, the
// best that free attention could give, and how it was measured.
std::string table(const RunInfo& info, const std::vector<Row>& rows);

}  // namespace regard::cli
