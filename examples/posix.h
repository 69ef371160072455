/* The processes of POSIX, for programs that are compiled to wasm and given fork() by the pass.
 *
 * The calls are imports of the module `kernel`, which a host of instrumented programs provides (fork-run
 * is one). Each returns a value that is negative for an error: -errno. Compiled for anything but wasm,
 * the same program calls the system it runs on; that is where the NAME.expected files come from.
 */
#ifndef POSIX_H
#define POSIX_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef __wasm__
#include <sys/types.h>
#include <sys/wait.h>
#else

#define KERNEL(name) __attribute__((import_module("kernel"), import_name(name)))

KERNEL("kernel_fork") int kernel_fork(void);
KERNEL("waitpid") int kernel_waitpid(int pid, int *status, int options);
KERNEL("getpid") int kernel_getpid(void);
KERNEL("getppid") int kernel_getppid(void);
KERNEL("pipe") int kernel_pipe(int fds[2]);
KERNEL("dup2") int kernel_dup2(int old_fd, int new_fd);

static inline int posix_result(int result) {
  if (result < 0) {
    errno = -result;
    return -1;
  }
  return result;
}

static inline int posix_fork(void) { return posix_result(kernel_fork()); }
static inline int posix_waitpid(int pid, int *status, int options) {
  return posix_result(kernel_waitpid(pid, status, options));
}
static inline int posix_getpid(void) { return kernel_getpid(); }
static inline int posix_getppid(void) { return kernel_getppid(); }
static inline int posix_pipe(int fds[2]) { return posix_result(kernel_pipe(fds)); }
static inline int posix_dup2(int old_fd, int new_fd) { return posix_result(kernel_dup2(old_fd, new_fd)); }

/* libc declares some of these and marks them as missing, hence other names. */
#define fork posix_fork
#define waitpid posix_waitpid
#define getpid posix_getpid
#define getppid posix_getppid
#define pipe posix_pipe
#define dup2 posix_dup2

#define WNOHANG 1
#define WIFEXITED(status) (((status) & 0x7f) == 0)
#define WEXITSTATUS(status) (((status) >> 8) & 0xff)
#define WIFSIGNALED(status) (((status) & 0x7f) != 0)
#define WTERMSIG(status) ((status) & 0x7f)

#endif /* __wasm__ */

static inline _Noreturn void die(const char *what) {
  printf("%s failed: errno %d\n", what, errno);
  fflush(stdout);
  _exit(99);
}

/* fork(), after writing out what stdio holds, which both sides would write otherwise. */
static inline int fork_or_die(void) {
  fflush(stdout);
  int pid = fork();
  if (pid < 0) die("fork");
  return pid;
}

/* Ends a child: no atexit handlers, which are the parent's, but nothing printed is lost. */
static inline _Noreturn void leave(int status) {
  fflush(stdout);
  _exit(status);
}

/* The exit status of a child, once it has ended. */
static inline int wait_for(int pid) {
  int status = 0;
  if (waitpid(pid, &status, 0) != pid) die("waitpid");
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

#endif /* POSIX_H */
