// A set of locals, for analyses of functions that have thousands of them.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace fork_instrument {

struct LocalBits {
  std::vector<uint64_t> words;

  explicit LocalBits(size_t locals = 0) : words((locals + 63) / 64) {}
  void add(size_t local) { words[local / 64] |= uint64_t(1) << (local % 64); }
  void remove(size_t local) { words[local / 64] &= ~(uint64_t(1) << (local % 64)); }
  bool has(size_t local) const { return words[local / 64] >> (local % 64) & 1; }
  void clear() { std::fill(words.begin(), words.end(), 0); }
  void add(const LocalBits& others) {
    for (size_t i = 0; i < others.words.size(); i++) {
      words[i] |= others.words[i];
    }
  }
  size_t size() const {
    size_t size = 0;
    for (auto word : words) {
      size += std::popcount(word);
    }
    return size;
  }
  // In ascending order.
  template <typename Task> void each(Task task) const {
    for (size_t i = 0; i < words.size(); i++) {
      for (auto word = words[i]; word; word &= word - 1) {
        task(i * 64 + std::countr_zero(word));
      }
    }
  }
  bool operator==(const LocalBits& other) const { return words == other.words; }
};

} // namespace fork_instrument
