/* The functions of dash.h, and those commands of dash's that wasm has no system for. */
#include "dash.h"

#include <wasi/api.h>

/* Set when a child may have ended. */
extern volatile sig_atomic_t gotsigchld;

/* Descriptors are copied to the first free one, if that is asked for; what else a descriptor has is not kept. */
int dash_fcntl(int fd, int command, int argument) {
  if (command != F_DUPFD && command != F_DUPFD_CLOEXEC) return 0;
  __wasi_fdstat_t stat;
  if (__wasi_fd_fdstat_get(fd, &stat) != 0) return errno = EBADF, -1;
  while (__wasi_fd_fdstat_get(argument, &stat) == 0) argument++;
  return dup2(fd, argument);
}

/* There are no signals that could interrupt it: whoever waits for children looks again. */
int sigsuspend(const sigset_t *mask) {
  gotsigchld = 1;
  errno = EINTR;
  return -1;
}

int ulimitcmd(int argc, char **argv) { return 1; }
