// A file of JSON lines that grows by whole lines, so that a killed run goes on. Layer: cli.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace regard::cli {

class Journal {
 public:
  // Reads what is there. A half line at the end (killed while writing) is cut off, which notice()
  // tells. Throws Error: cannot be written, in use by another run, a line that is not JSON.
  explicit Journal(const std::string& path);
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  const std::vector<nlohmann::ordered_json>& lines() const { return lines_; }
  // On disk when it returns. Throws Error (a full disk), and then the file is as before.
  void append(const nlohmann::ordered_json& line);
  const std::string& notice() const { return notice_; }

 private:
  [[noreturn]] void fail(const std::string& why) const;

  std::string path_, notice_;
  int fd_ = -1;
  std::vector<nlohmann::ordered_json> lines_;
};

}  // namespace regard::cli
