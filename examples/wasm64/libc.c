/* See libc.h. Small and plain rather than quick. */
#include "libc.h"

#define WASI(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(name)))

struct span {
  void *data;
  size_t size;
};

WASI("fd_write") int wasi_fd_write(int fd, const struct span *spans, size_t count, size_t *written);
WASI("fd_read") int wasi_fd_read(int fd, const struct span *spans, size_t count, size_t *got);
WASI("fd_close") int wasi_fd_close(int fd);
WASI("proc_exit") _Noreturn void wasi_proc_exit(int status);

int errno;

struct file {
  int fd;
  size_t length;
  char buffer[1024];
};

static struct file standard_output = {STDOUT_FILENO, 0, {0}};
FILE *const stdout = &standard_output;

ssize_t write(int fd, const void *data, size_t size) {
  struct span span = {(void *)data, size};
  size_t written = 0;
  errno = wasi_fd_write(fd, &span, 1, &written);
  return errno ? -1 : (ssize_t)written;
}

ssize_t read(int fd, void *data, size_t size) {
  struct span span = {data, size};
  size_t got = 0;
  errno = wasi_fd_read(fd, &span, 1, &got);
  return errno ? -1 : (ssize_t)got;
}

int close(int fd) {
  errno = wasi_fd_close(fd);
  return errno ? -1 : 0;
}

_Noreturn void _exit(int status) { wasi_proc_exit(status); }

int fflush(FILE *file) {
  size_t done = 0;
  while (done < file->length) {
    ssize_t written = write(file->fd, file->buffer + done, file->length - done);
    if (written <= 0) return -1;
    done += (size_t)written;
  }
  file->length = 0;
  return 0;
}

static void put(FILE *file, char byte) {
  if (file->length == sizeof file->buffer) fflush(file);
  file->buffer[file->length++] = byte;
}

/* Where formatted text goes: a file, or a buffer of which only so much is written. */
struct sink {
  FILE *file;
  char *buffer;
  size_t size, length;
};

static void emit(struct sink *sink, char byte) {
  if (sink->file) {
    put(sink->file, byte);
  } else if (sink->length + 1 < sink->size) {
    sink->buffer[sink->length] = byte;
  }
  sink->length++;
}

static void emit_number(struct sink *sink, unsigned value, unsigned base, int negative, int width, char pad) {
  char digits[16];
  int count = 0;
  do digits[count++] = "0123456789abcdef"[value % base];
  while ((value /= base) != 0);
  if (negative) digits[count++] = '-';
  for (; width > count; width--) emit(sink, pad);
  while (count > 0) emit(sink, digits[--count]);
}

static void format_to(struct sink *sink, const char *format, va_list arguments) {
  for (; *format; format++) {
    if (*format != '%') {
      emit(sink, *format);
      continue;
    }
    format++;
    char pad = ' ';
    int width = 0;
    if (*format == '0') pad = *format++;
    while (*format >= '0' && *format <= '9') width = width * 10 + (*format++ - '0');
    switch (*format) {
      case 'd': {
        int value = va_arg(arguments, int);
        emit_number(sink, value < 0 ? 0u - (unsigned)value : (unsigned)value, 10, value < 0, width, pad);
        break;
      }
      case 'u':
      case 'x':
        emit_number(sink, va_arg(arguments, unsigned), *format == 'x' ? 16 : 10, 0, width, pad);
        break;
      case 's':
        for (const char *text = va_arg(arguments, const char *); *text; text++) emit(sink, *text);
        break;
      case 'c': emit(sink, (char)va_arg(arguments, int)); break;
      case '%': emit(sink, '%'); break;
      default: __builtin_trap();
    }
  }
}

int printf(const char *format, ...) {
  struct sink sink = {stdout, NULL, 0, 0};
  va_list arguments;
  va_start(arguments, format);
  format_to(&sink, format, arguments);
  va_end(arguments);
  return (int)sink.length;
}

int snprintf(char *buffer, size_t size, const char *format, ...) {
  struct sink sink = {NULL, buffer, size, 0};
  va_list arguments;
  va_start(arguments, format);
  format_to(&sink, format, arguments);
  va_end(arguments);
  if (size > 0) buffer[sink.length < size ? sink.length : size - 1] = 0;
  return (int)sink.length;
}

/* Memory is taken from the end of what is there and never given back: the examples are short. */
void *malloc(size_t size) {
  static uintptr_t next, end;
  size = (size + 15) & ~(size_t)15;
  if (end - next < size) {
    size_t pages = (size + 0xffff) / 0x10000 + 16;
    size_t first = __builtin_wasm_memory_grow(0, pages);
    if (first == (size_t)-1) return NULL;
    next = first * 0x10000;
    end = next + pages * 0x10000;
  }
  void *result = (void *)next;
  next += size;
  return result;
}

void *calloc(size_t count, size_t size) {
  void *result = malloc(count * size);
  return result ? memset(result, 0, count * size) : result;
}

void free(void *pointer) { (void)pointer; }

static void swap(char *left, char *right, size_t size) {
  while (size-- > 0) {
    char byte = *left;
    *left++ = *right;
    *right++ = byte;
  }
}

/* A heap sort. */
void qsort(void *base, size_t count, size_t size, int (*compare)(const void *, const void *)) {
  char *items = base;
  size_t start = count / 2, end = count;
  while (end > 1) {
    if (start > 0) {
      start--;
    } else {
      end--;
      swap(items, items + end * size, size);
    }
    for (size_t at = start, child; (child = 2 * at + 1) < end; at = child) {
      if (child + 1 < end && compare(items + child * size, items + (child + 1) * size) < 0) child++;
      if (compare(items + at * size, items + child * size) >= 0) break;
      swap(items + at * size, items + child * size, size);
    }
  }
}

void *memcpy(void *restrict to, const void *restrict from, size_t size) { return memmove(to, from, size); }

void *memmove(void *to, const void *from, size_t size) {
  char *target = to;
  const char *source = from;
  if (target <= source) {
    for (size_t i = 0; i < size; i++) target[i] = source[i];
  } else {
    while (size-- > 0) target[size] = source[size];
  }
  return to;
}

void *memset(void *to, int byte, size_t size) {
  for (char *target = to; size > 0; size--) *target++ = (char)byte;
  return to;
}

size_t strlen(const char *text) {
  size_t length = 0;
  while (text[length]) length++;
  return length;
}

int strcmp(const char *left, const char *right) {
  while (*left && *left == *right) left++, right++;
  return (unsigned char)*left - (unsigned char)*right;
}

char *strcpy(char *restrict to, const char *restrict from) {
  memcpy(to, from, strlen(from) + 1);
  return to;
}

char *strcat(char *restrict to, const char *restrict from) {
  strcpy(to + strlen(to), from);
  return to;
}

char *strchr(const char *text, int byte) {
  for (; *text != (char)byte; text++) {
    if (!*text) return NULL;
  }
  return (char *)text;
}

int __main_void(void);

__attribute__((export_name("_start"))) void _start(void) {
  int status = __main_void();
  fflush(stdout);
  if (status != 0) _exit(status);
}
