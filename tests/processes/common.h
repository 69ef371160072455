/* Programs here run twice, on the system that compiles them and as instrumented wasm, and must do the same. */
#ifndef COMMON_H
#define COMMON_H

#include "posix.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>

/* Where files go: the first argument. Standard output becomes the file `out` there. */
static const char *folder;

static inline const char *in_folder(const char *name) {
  static char paths[4][512];
  static int next;
  char *path = paths[next++ % 4];
  snprintf(path, sizeof paths[0], "%s/%s", folder, name);
  return path;
}

static inline void begin(int count, char **arguments) {
  if (count < 2) die("usage: PROGRAM FOLDER");
  folder = arguments[1];
  if (!freopen(in_folder("out"), "w", stdout)) die("freopen");
}

static inline int open_or_die(const char *name, int flags) {
  int fd = open(in_folder(name), flags, 0644);
  if (fd < 0) die(name);
  return fd;
}

static inline void write_text(int fd, const char *text) {
  if (write(fd, text, strlen(text)) != (ssize_t)strlen(text)) die("write");
}

static inline void pause_for_ms(int milliseconds) {
  struct timespec time = {0, milliseconds * 1000000L};
  nanosleep(&time, NULL);
}

#endif /* COMMON_H */
