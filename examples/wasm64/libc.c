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
  int mode;
  size_t length;
  char buffer[BUFSIZ];
};

static struct file standard_output = {STDOUT_FILENO, _IOFBF, 0, {0}};
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

_Noreturn void exit(int status) {
  fflush(stdout);
  _exit(status);
}

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
  if (file->mode == _IOLBF && byte == '\n') fflush(file);
}

int setvbuf(FILE *file, char *buffer, int mode, size_t size) {
  (void)buffer, (void)size;
  file->mode = mode;
  return 0;
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

static void emit_number(struct sink *sink, uint64_t value, unsigned base, int negative, int width, char pad) {
  char digits[24];
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
    int is_long = *format == 'l' && *++format == 'l';
    if (is_long) format++;
    switch (*format) {
      case 'd': {
        int64_t value = is_long ? va_arg(arguments, long long) : va_arg(arguments, int);
        emit_number(sink, value < 0 ? 0 - (uint64_t)value : (uint64_t)value, 10, value < 0, width, pad);
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

/* Blocks of 2^order bytes, the order in front. Those that are free wait in lists, one for each order; new ones are cut
   from the end of memory. */
enum { SMALLEST = 5, ORDERS = 48 };

struct block {
  size_t order;
  struct block *next; /* while it is free */
  char data[];
};
_Static_assert(sizeof(struct block) == 16, "what follows is aligned for anything");

static struct block *free_blocks[ORDERS];

static void *cut_from_the_end(size_t size) {
  static uintptr_t next, end;
  if (end - next < size) {
    size_t pages = (size + 0xffff) / 0x10000 + 16;
    size_t first = __builtin_wasm_memory_grow(0, pages);
    if (first == (size_t)-1) return NULL;
    if (first * 0x10000 != end) next = first * 0x10000;
    end = (first + pages) * 0x10000;
  }
  void *result = (void *)next;
  next += size;
  return result;
}

static struct block *block_of(void *pointer) { return (struct block *)((char *)pointer - sizeof(struct block)); }

static size_t capacity(size_t order) { return ((size_t)1 << order) - sizeof(struct block); }

void *malloc(size_t size) {
  size_t order = SMALLEST;
  while (capacity(order) < size) {
    if (++order == ORDERS) return NULL;
  }
  struct block *block = free_blocks[order];
  if (block) {
    free_blocks[order] = block->next;
  } else {
    block = cut_from_the_end((size_t)1 << order);
    if (!block) return NULL;
    block->order = order;
  }
  return block->data;
}

void *calloc(size_t count, size_t size) {
  void *result = malloc(count * size);
  return result ? memset(result, 0, count * size) : result;
}

void *realloc(void *pointer, size_t size) {
  if (!pointer) return malloc(size);
  size_t old_size = capacity(block_of(pointer)->order);
  if (size <= old_size) return pointer;
  void *result = malloc(size);
  if (!result) return NULL;
  memcpy(result, pointer, old_size);
  free(pointer);
  return result;
}

void free(void *pointer) {
  if (!pointer) return;
  struct block *block = block_of(pointer);
  block->next = free_blocks[block->order];
  free_blocks[block->order] = block;
}

int atoi(const char *text) {
  int negative = *text == '-', value = 0;
  if (negative) text++;
  while (*text >= '0' && *text <= '9') value = value * 10 + (*text++ - '0');
  return negative ? -value : value;
}

double fabs(double value) { return __builtin_fabs(value); }

/* A call that the compiler makes for products of 128 bits, also to see whether one of 64 bits overflows. */
__int128 __multi3(__int128 left, __int128 right) {
  const uint64_t half = 0xffffffff, a = (uint64_t)left, b = (uint64_t)right;
  uint64_t low = (a & half) * (b & half);
  uint64_t middle = (a >> 32) * (b & half) + (low >> 32);
  uint64_t other = (a & half) * (b >> 32) + (middle & half);
  uint64_t high = (a >> 32) * (b >> 32) + (middle >> 32) + (other >> 32);
  high += (uint64_t)(left >> 64) * b + a * (uint64_t)(right >> 64);
  return (__int128)high << 64 | (other << 32 | (low & half));
}

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

/* Instructions of their own: memory.copy and memory.fill. */
void *memcpy(void *restrict to, const void *restrict from, size_t size) { return __builtin_memcpy(to, from, size); }
void *memmove(void *to, const void *from, size_t size) { return __builtin_memmove(to, from, size); }
void *memset(void *to, int byte, size_t size) { return __builtin_memset(to, byte, size); }

void *memchr(const void *data, int byte, size_t size) {
  for (const unsigned char *at = data; size > 0; at++, size--) {
    if (*at == (unsigned char)byte) return (void *)at;
  }
  return NULL;
}

int memcmp(const void *left, const void *right, size_t size) {
  const unsigned char *a = left, *b = right;
  for (; size > 0; a++, b++, size--) {
    if (*a != *b) return *a - *b;
  }
  return 0;
}

size_t strlen(const char *text) {
  size_t length = 0;
  while (text[length]) length++;
  return length;
}

/* How many bytes at the start of the text are in the set, or are not. */
static size_t span_of(const char *text, const char *set, int inside) {
  size_t length = 0;
  while (text[length] && (strchr(set, text[length]) != NULL) == inside) length++;
  return length;
}

size_t strspn(const char *text, const char *set) { return span_of(text, set, 1); }
size_t strcspn(const char *text, const char *set) { return span_of(text, set, 0); }

int strcmp(const char *left, const char *right) { return strncmp(left, right, SIZE_MAX); }

int strncmp(const char *left, const char *right, size_t size) {
  for (; size > 0; left++, right++, size--) {
    if (!*left || *left != *right) return (unsigned char)*left - (unsigned char)*right;
  }
  return 0;
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

char *strrchr(const char *text, int byte) {
  for (const char *at = text + strlen(text);; at--) {
    if (*at == (char)byte) return (char *)at;
    if (at == text) return NULL;
  }
}

/* A main(void) gets this one beside it from the compiler. */
int main(int argc, char **argv);

__attribute__((export_name("_start"))) void _start(void) {
  char *no_arguments = NULL;
  int status = main(0, &no_arguments);
  fflush(stdout);
  if (status != 0) _exit(status);
}
