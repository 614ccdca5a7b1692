// The program that loads the plug-in: is its ggml the one this was built for, and what does its
// environment ask for? Layer: integrations.
#pragma once
#include <string>

namespace regard::ggml {

// Empty, or one line that names both versions: ggml's structs are not stable between releases, so
// another version would be read wrongly rather than fail.
std::string version_mismatch();

struct Settings {
  std::string method;     // REGARD_METHOD, or "@" and REGARD_PROFILE; empty: exact
  int threads = 0;        // REGARD_THREADS; 0: not given
  std::string numeric;    // REGARD_NUMERIC; empty: default_numeric()
  bool log_plan = false;  // REGARD_LOG=plan
};
Settings
read_settings();  // throws regard::Error that names the variable, its value and what is accepted

void say(const std::string& line);  // to stderr, whatever the program does with ggml's log

}  // namespace regard::ggml
