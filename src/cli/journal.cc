#include "cli/journal.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "regard/status.h"

namespace regard::cli {

void Journal::fail(const std::string& why) const {
  throw Error(fmt::format("journal '{}': {}", path_, why));
}

Journal::Journal(const std::string& path) : path_(path) {
  fd_ = open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (fd_ < 0) fail(fmt::format("cannot be written: {}", std::strerror(errno)));
  struct stat st;
  if (fstat(fd_, &st) != 0 || !S_ISREG(st.st_mode)) fail("is not a regular file");
  if (flock(fd_, LOCK_EX | LOCK_NB) != 0) fail("another run is writing it");
  std::string text(size_t(st.st_size), '\0');
  for (size_t done = 0; done < text.size();) {
    const ssize_t n = pread(fd_, text.data() + done, text.size() - done, off_t(done));
    if (n <= 0) fail(fmt::format("cannot be read: {}", n ? std::strerror(errno) : "it shrank"));
    done += size_t(n);
  }
  const size_t whole = text.rfind('\n') == std::string::npos ? 0 : text.rfind('\n') + 1;
  if (whole < text.size()) {
    if (ftruncate(fd_, off_t(whole)) != 0) fail(std::strerror(errno));
    notice_ = fmt::format("{}: the last line was cut short ({} bytes) and is dropped", path,
                          text.size() - whole);
  }
  for (size_t begin = 0; begin < whole;) {
    const size_t end = text.find('\n', begin);
    auto line = nlohmann::ordered_json::parse(text.begin() + int64_t(begin),
                                              text.begin() + int64_t(end), nullptr, false);
    if (!line.is_object())
      fail(fmt::format("line {} is not a JSON object; remove it or the file", lines_.size() + 1));
    lines_.push_back(std::move(line));
    begin = end + 1;
  }
}

Journal::~Journal() {
  if (fd_ >= 0) close(fd_);
}

void Journal::append(const nlohmann::ordered_json& line) {
  const std::string text =
      line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  const off_t before = lseek(fd_, 0, SEEK_END);
  const auto give_up = [&] {
    const std::string why = std::strerror(errno);
    if (ftruncate(fd_, before) != 0) fail(why + "; and half a line is left");
    fail(why);
  };
  for (size_t done = 0; done < text.size();) {
    const ssize_t n = write(fd_, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) give_up();
    done += size_t(n);
  }
  if (fsync(fd_) != 0) give_up();
  lines_.push_back(line);
}

}  // namespace regard::cli
