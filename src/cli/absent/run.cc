// The verbs that need a model, in a build without llama.cpp.
#include "cli/verbs.h"
#include "regard/status.h"

namespace regard::cli {
namespace {

void add_absent(CLI::App& app, const char* verb, const char* what) {
  CLI::App* sub = app.add_subcommand(verb, std::string(what) + " (not in this build)");
  sub->allow_extras();
  sub->callback([verb] {
    throw Error(std::string(verb) +
                ": this program was built without llama.cpp; configure with -DREGARD_GGML=ON");
  });
}

}  // namespace

void add_run(CLI::App& app) { add_absent(app, "run", "Read a document with a model"); }
void add_frontier(CLI::App& app) { add_absent(app, "frontier", "Compare all methods on a model"); }
void add_capture(CLI::App& app) { add_absent(app, "capture", "Write a model's q, k, v to files"); }
void add_search(CLI::App& app) { add_absent(app, "search", "Choose a method for each head"); }

}  // namespace regard::cli
