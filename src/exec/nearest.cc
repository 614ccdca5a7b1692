#include "exec/nearest.h"

#include <algorithm>

namespace regard {
namespace {

// Optimal string alignment distance.
size_t distance(const std::string& a, const std::string& b) {
  const size_t n = b.size() + 1;
  std::vector<size_t> d((a.size() + 1) * n);
  for (size_t i = 0; i <= a.size(); ++i)
    for (size_t j = 0; j <= b.size(); ++j) {
      size_t& best = d[i * n + j];
      if (i == 0 || j == 0) {
        best = i + j;
        continue;
      }
      const bool same = a[i - 1] == b[j - 1];
      best = std::min(
          {d[(i - 1) * n + j] + 1, d[i * n + j - 1] + 1, d[(i - 1) * n + j - 1] + (same ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        best = std::min(best, d[(i - 2) * n + j - 2] + 1);
    }
  return d.back();
}

}  // namespace

std::vector<std::string> nearest(const std::string& word, std::vector<std::string> names,
                                 size_t count) {
  const auto cost = [&](const std::string& name) -> size_t {
    const bool begins = !word.empty() && (name.starts_with(word) || word.starts_with(name));
    return begins ? 0 : distance(word, name);
  };
  std::stable_sort(names.begin(), names.end(),
                   [&](const std::string& a, const std::string& b) { return cost(a) < cost(b); });
  while (names.size() > count || (!names.empty() && cost(names.back()) > cost(names[0]) + 2))
    names.pop_back();
  return names;
}

}  // namespace regard
