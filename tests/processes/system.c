/* Arguments, environment, clocks, random bytes, and the end of a program. */
#include "common.h"

extern char **environ;

static void at_exit(void) { printf("at exit\n"); }

int main(int count, char **arguments) {
  begin(count, arguments);
  for (int i = 2; i < count; i++) printf("argument %d: '%s'\n", i, arguments[i]);
  int pid = fork_or_die();
  if (pid == 0) {
    for (char **entry = environ; *entry; entry++) {
      if (strncmp(*entry, "TEST_", 5) == 0) printf("child: %s\n", *entry);
    }
    leave(0);
  }
  wait_for(pid);
  printf("missing: %d\n", getenv("TEST_MISSING") == NULL);

  struct timespec before, after, real;
  if (clock_gettime(CLOCK_MONOTONIC, &before) < 0 || clock_gettime(CLOCK_REALTIME, &real) < 0) die("clock_gettime");
  pause_for_ms(20);
  clock_gettime(CLOCK_MONOTONIC, &after);
  long passed = (after.tv_sec - before.tv_sec) * 1000000000L + (after.tv_nsec - before.tv_nsec);
  printf("slept: %d, later than 2020: %d\n", passed >= 20000000L, real.tv_sec > 1577836800);

  unsigned char one[16] = {0}, other[16] = {0};
  if (getentropy(one, sizeof one) < 0 || getentropy(other, sizeof other) < 0) die("getentropy");
  printf("random: %d\n", memcmp(one, other, sizeof one) != 0);

  atexit(at_exit);
  exit(42);
}
