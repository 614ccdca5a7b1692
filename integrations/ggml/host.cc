#include "host.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <link.h>

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "ggml-version.h"
#include "ggml.h"
#include "regard/status.h"

namespace regard::ggml {
namespace {

constexpr int kMaxThreads = 1024;

struct Version {
  std::string number, commit;
  std::string str() const { return number + " (commit " + commit + ")"; }
};

bool same(const Version& a, const Version& b) {
  // Sources from a release archive do not know their commit.
  const bool commits_known = a.commit != "unknown" && b.commit != "unknown";
  return a.number == b.number && (!commits_known || a.commit == b.commit);
}

// Every ggml in this process. One whose soname differs from ours is not the one we are linked to,
// yet it may be the one that calls us.
std::vector<Version> running_versions() {
  std::vector<Version> found{{ggml_version(), ggml_commit()}};
  std::vector<std::string> paths;
  dl_iterate_phdr(
      [](dl_phdr_info* object, size_t, void* out) {
        if (object->dlpi_name && std::strstr(object->dlpi_name, "libggml-base"))
          static_cast<std::vector<std::string>*>(out)->push_back(object->dlpi_name);
        return 0;
      },
      &paths);
  for (const std::string& path : paths) {
    void* handle = dlopen(path.c_str(), RTLD_NOLOAD | RTLD_LAZY);
    if (!handle) continue;
    using Text = const char* (*)();
    const auto number = reinterpret_cast<Text>(dlsym(handle, "ggml_version"));
    const auto commit = reinterpret_cast<Text>(dlsym(handle, "ggml_commit"));
    if (number) found.push_back({number(), commit ? commit() : "unknown"});
    dlclose(handle);
  }
  return found;
}

std::string env(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

}  // namespace

std::string version_mismatch() {
  const Version built{GGML_VERSION, GGML_COMMIT};
  for (const Version& v : running_versions())
    if (!same(v, built))
      return fmt::format(
          "built for ggml {}, but this program runs ggml {}: build Regard with "
          "-DREGARD_LLAMA_CPP_DIR=<that program's llama.cpp>",
          built.str(), v.str());
  return "";
}

Settings read_settings() {
  Settings s;
  s.method = env("REGARD_METHOD");
  s.numeric = env("REGARD_NUMERIC");
  if (const std::string p = env("REGARD_PROFILE"); !p.empty()) {
    if (!s.method.empty())
      throw Error(
          fmt::format("REGARD_PROFILE='{}' and REGARD_METHOD='{}': give one of them", p, s.method));
    s.method = "@" + p;
  }
  if (const std::string t = env("REGARD_THREADS"); !t.empty()) {
    const auto [end, error] = std::from_chars(t.data(), t.data() + t.size(), s.threads);
    if (error != std::errc() || end != t.data() + t.size() || s.threads < 1 ||
        s.threads > kMaxThreads)
      throw Error(fmt::format("REGARD_THREADS='{}': a whole number from 1 to {} is accepted", t,
                              kMaxThreads));
  }
  if (const std::string l = env("REGARD_LOG"); !l.empty()) {
    if (l != "plan") throw Error(fmt::format("REGARD_LOG='{}': only 'plan' is accepted", l));
    s.log_plan = true;
  }
  return s;
}

void say(const std::string& line) { std::fprintf(stderr, "regard: %s\n", line.c_str()); }

}  // namespace regard::ggml
