// regard: the command line. Errors are one line on stderr and a non-zero exit. Layer: cli.
#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>

#include "cli/verbs.h"
#include "regard/run.h"
#include "regard/status.h"

namespace regard::cli {
namespace {

void add_verbs(CLI::App& app) {
  add_list(app);
  add_describe(app);
  add_plan(app);
  add_attend(app);
  add_run(app);
  add_frontier(app);
  add_capture(app);
  add_search(app);
  add_explain(app);
#ifdef REGARD_CLI_CHECK
  add_check(app);
#endif
#ifdef REGARD_CLI_BENCH
  add_bench(app);
#endif
}

int fail(std::string what, int code) {
  for (char& c : what)
    if (c == '\n' || c == '\r') c = ' ';
  std::fflush(stdout);
  fmt::print(stderr, "regard: {}\n", what);
  return code;
}

// CLI11 says only that an argument was not expected.
std::string usage_error(const CLI::App& app, const CLI::ParseError& e, int argc, char** argv) {
  std::string verbs;
  bool known = argc < 2 || argv[1][0] == '-';
  for (const CLI::App* verb : app.get_subcommands(nullptr)) {
    verbs += (verbs.empty() ? "" : ", ") + verb->get_name();
    known |= argc > 1 && verb->get_name() == argv[1];
  }
  if (!known) return fmt::format("unknown verb '{}'; accepted: {}", argv[1], verbs);
  if (argc > 1 && app.get_subcommands().empty())
    return fmt::format("unknown option '{}' (regard --help tells more)", argv[1]);
  if (argc < 2) return fmt::format("say a verb: {} (regard --help tells more)", verbs);
  return e.what();
}

int run(int argc, char** argv) {
  CLI::App app("Regard: one engine for efficient attention.", "regard");
  app.set_version_flag("--version", std::string("regard ") + version());
  app.require_subcommand(1);
  app.footer(
      "Example:\n  regard plan xattention --planted mixed\nregard VERB --help tells more of each.");
  add_verbs(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::RuntimeError& e) {
    return e.get_exit_code();  // a verb that said all there is to say: 130 after Ctrl-C
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);  // --help, --version
    return fail(usage_error(app, e, argc, argv), 2);
  }
  // What was printed may not have arrived: a full disk is an error too.
  if (std::fflush(stdout) != 0) return fail(fmt::format("stdout: {}", std::strerror(errno)), 1);
  return 0;
}

}  // namespace
}  // namespace regard::cli

int main(int argc, char** argv) {
  try {
    return regard::cli::run(argc, argv);
  } catch (const std::bad_alloc&) {
    return regard::cli::fail("out of memory", 1);
  } catch (const std::exception& e) {  // regard::Error above all
    return regard::cli::fail(e.what(), 1);
  }
}
