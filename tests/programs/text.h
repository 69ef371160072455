/* Text that compresses about as well as prose does, the same every time. */
#ifndef TEXT_H
#define TEXT_H

#include <stddef.h>

static inline void fill_with_text(char *buffer, size_t size) {
  static const char *const words[] = {"fork ",   "the ",  "frame ", "of ",     "a ",       "stack ", "and ",  "memory ",
                                      "parent ", "child ", "to ",    "module ", "unwinds ", "in ",    "with ", "process\n"};
  unsigned state = 2463534242u;
  for (size_t at = 0; at < size;) {
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    for (const char *word = words[(state >> 7) % 16]; *word && at < size; word++) buffer[at++] = *word;
  }
}

static inline unsigned hash_of(const void *data, size_t size) {
  const unsigned char *bytes = data;
  unsigned hash = 2166136261u;
  for (size_t i = 0; i < size; i++) hash = (hash ^ bytes[i]) * 16777619u;
  return hash;
}

#endif
