// Files that regard run reads and writes, checked before the long work. Layer: cli.
#pragma once
#include <string>

namespace regard::cli {

// Throws Error unless `path` could be created or replaced now. Leaves nothing behind.
void check_writable(const char* what, const std::string& path);
// Writes beside `path`, then renames: readers see the old file or the whole new one.
void write_file(const char* what, const std::string& path, const std::string& content);
bool same_file(const std::string& a, const std::string& b);  // false where one does not exist

// The whole file; throws Error unless it is UTF-8 text without NUL bytes.
std::string read_text(const std::string& path);
// Throws Error: no such file, not a GGUF, header damaged, no attention heads, or shorter
// than its tensor table says.
void check_gguf(const std::string& path);

}  // namespace regard::cli
