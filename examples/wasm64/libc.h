/* As much of libc as the examples and SQLite use, for 64-bit memories, where there is no wasi-libc.
 *
 * The headers beside this one lead here; libc.c has the functions. WASI's preview 1 is taken as it stands with
 * every pointer and size 64 bits wide, in parameters and in memory (an iovec has 16 bytes).
 */
#ifndef WASM64_LIBC_H
#define WASM64_LIBC_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

typedef long ssize_t;
typedef struct file FILE;

enum { STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO };

extern int errno;
extern FILE *const stdout;

enum { _IOFBF, _IOLBF, BUFSIZ = 1024 };

/* Flags, widths and precisions only as far as the programs go: %d %u %x %lld %s %c, %0Nd and %Nd alike. */
int printf(const char *format, ...) __attribute__((format(printf, 1, 2)));
int snprintf(char *buffer, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
int fflush(FILE *file);
/* A file has a buffer of BUFSIZ bytes, whatever is asked for. */
int setvbuf(FILE *file, char *buffer, int mode, size_t size);

ssize_t read(int fd, void *data, size_t size);
ssize_t write(int fd, const void *data, size_t size);
int close(int fd);
_Noreturn void _exit(int status);
_Noreturn void exit(int status);

void *malloc(size_t size);
void *calloc(size_t count, size_t size);
void *realloc(void *pointer, size_t size);
void free(void *pointer);
int atoi(const char *text);
void qsort(void *base, size_t count, size_t size, int (*compare)(const void *, const void *));

void *memcpy(void *restrict to, const void *restrict from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);
void *memchr(const void *data, int byte, size_t size);
int memcmp(const void *left, const void *right, size_t size);
size_t strlen(const char *text);
size_t strspn(const char *text, const char *set);
size_t strcspn(const char *text, const char *set);
int strcmp(const char *left, const char *right);
int strncmp(const char *left, const char *right, size_t size);
char *strcpy(char *restrict to, const char *restrict from);
char *strcat(char *restrict to, const char *restrict from);
char *strchr(const char *text, int byte);
char *strrchr(const char *text, int byte);

double fabs(double value);
#define INFINITY __builtin_inff()

#endif
