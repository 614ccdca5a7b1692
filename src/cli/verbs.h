// The verbs of `regard`, one file each. Layer: cli.
#pragma once
#include <CLI/CLI.hpp>

namespace regard::cli {

// Each adds its subcommand; the work is done in the subcommand's callback, which throws Error.
void add_list(CLI::App& app);
void add_describe(CLI::App& app);
void add_plan(CLI::App& app);
void add_attend(CLI::App& app);
void add_explain(CLI::App& app);
void add_run(CLI::App& app);
void add_frontier(CLI::App& app);
void add_capture(CLI::App& app);
void add_search(CLI::App& app);
void add_check(CLI::App& app);
void add_bench(CLI::App& app);

}  // namespace regard::cli
