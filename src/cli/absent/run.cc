// regard run in a build without llama.cpp.
#include "cli/verbs.h"
#include "regard/status.h"

namespace regard::cli {

void add_run(CLI::App& app) {
  CLI::App* run = app.add_subcommand("run", "Read a document with a model (not in this build)");
  run->allow_extras();
  run->callback([] {
    throw Error("run: this program was built without llama.cpp; configure with -DREGARD_GGML=ON");
  });
}

}  // namespace regard::cli
