/* Forks inside the comparison that qsort calls back, so that libc's own functions are on the stack.
 *
 * First at the first comparison, after which the child sorts the other way round; then in the middle of a
 * sort, where the child must end up with the same array as the parent.
 */
#include "posix.h"
#include <stdint.h>

enum { COUNT = 200 };

static int numbers[COUNT];
static int comparisons, fork_at, direction, child;

static int compare(const void *left, const void *right) {
  if (++comparisons == fork_at) {
    child = fork_or_die();
    if (child == 0 && fork_at == 1) direction = -1;
  }
  int a = *(const int *)left, b = *(const int *)right;
  return direction * ((a > b) - (a < b));
}

static void fill(void) {
  uint32_t state = 12345;
  for (int i = 0; i < COUNT; i++) {
    state = state * 1664525u + 1013904223u;
    numbers[i] = (int)(state >> 22);
  }
}

static void sort_and_fork(int at) {
  fill();
  comparisons = 0;
  fork_at = at;
  direction = 1;
  child = -1;
  qsort(numbers, COUNT, sizeof numbers[0], compare);
}

static unsigned digest(void) {
  uint32_t hash = 2166136261u;
  for (int i = 0; i < COUNT; i++) hash = (hash ^ (uint32_t)numbers[i]) * 16777619u;
  return hash;
}

static void print_ends(const char *who) {
  printf("%s: %d %d %d ... %d %d %d\n", who, numbers[0], numbers[1], numbers[2], numbers[COUNT - 3],
         numbers[COUNT - 2], numbers[COUNT - 1]);
}

int main(void) {
  sort_and_fork(1);
  if (child == 0) {
    print_ends("child, descending");
    leave(7);
  }
  printf("the child exited with %d\n", wait_for(child));
  print_ends("parent, ascending");

  /* How many comparisons a sort takes is libc's choice; the two sides must only agree. */
  int at = COUNT * 3;
  sort_and_fork(at);
  unsigned side = (digest() ^ (unsigned)comparisons) & 0x7f;
  if (child == 0) leave((int)side);
  int status = wait_for(child);
  printf("forked in comparison %d: parent and child %s\n", at, status == (int)side ? "agree" : "differ");
  print_ends("parent");
  return 0;
}
