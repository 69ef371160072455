/* Children, their statuses, zombies, orphans; and memory, which is nobody else's. */
#include "common.h"

static int global = 1;

static void statuses_are_kept(void) {
  static const int codes[] = {0, 1, 42, 127, 255, 256, -1};
  enum { COUNT = sizeof codes / sizeof codes[0] };
  int pids[COUNT];
  for (int i = 0; i < COUNT; i++) {
    pids[i] = fork_or_die();
    if (pids[i] == 0) leave(codes[i]);
  }
  pause_for_ms(20);
  /* All are zombies by now; the last is asked for first. */
  for (int i = COUNT; i-- > 0;) printf("exit(%d) became %d\n", codes[i], wait_for(pids[i]));
  errno = 0;
  int status, result = waitpid(pids[0], &status, 0);
  printf("once more: %d, ECHILD %d\n", result, errno == ECHILD);
}

static void a_crash_is_a_signal(void) {
  int pid = fork_or_die(), status = 0;
  if (pid == 0) __builtin_trap();
  if (waitpid(pid, &status, 0) != pid) die("waitpid");
  printf("exited %d, signaled %d\n", WIFEXITED(status), WIFSIGNALED(status));
}

static void waiting_for_any_child(void) {
  int sum = 0, statuses = 0, expected = 0;
  for (int i = 1; i <= 5; i++) {
    int pid = fork_or_die();
    if (pid == 0) leave(i);
    expected += pid;
  }
  for (int pid, status; (pid = waitpid(-1, &status, 0)) > 0;) sum += pid, statuses += WEXITSTATUS(status);
  printf("all pids %d, statuses %d, ECHILD %d\n", sum == expected, statuses, errno == ECHILD);
}

static void waiting_without_blocking(void) {
  int fds[2], status;
  if (pipe(fds) < 0) die("pipe");
  int pid = fork_or_die();
  if (pid == 0) {
    char byte;
    close(fds[1]);
    if (read(fds[0], &byte, 1) != 0) die("read");
    leave(3);
  }
  printf("still running: %d\n", waitpid(pid, &status, WNOHANG));
  close(fds[1]);
  printf("ended with %d\n", wait_for(pid));
  close(fds[0]);
}

static void parents_and_orphans(void) {
  int parent = getpid(), fds[2], done[2];
  if (pipe(fds) < 0 || pipe(done) < 0) die("pipe");
  int child = fork_or_die();
  if (child == 0) {
    printf("the child's parent: %d, a pid of its own: %d\n", getppid() == parent, getpid() != parent);
    int self = getpid();
    if (fork_or_die() == 0) {
      char byte;
      close(fds[1]);
      /* Until the grandparent has reaped the child. */
      if (read(fds[0], &byte, 1) != 0) die("read");
      int fd = open_or_die("orphan", O_WRONLY | O_CREAT | O_TRUNC);
      write_text(fd, getppid() != self ? "adopted" : "not adopted");
      leave(0);
    }
    leave(getpid() == self ? 0 : 1);
  }
  printf("the child's pid: %d\n", wait_for(child) == 0 && child != parent);
  close(fds[0]), close(fds[1]), close(done[1]);
  char byte;
  printf("the grandchild has ended: %d\n", (int)read(done[0], &byte, 1));
  close(done[0]);
  int status;
  printf("the grandchild is none of ours: %d\n", waitpid(-1, &status, 0));
}

static void memory_is_private(void) {
  int local = 1, *heap = malloc(sizeof *heap);
  *heap = 1;
  int pid = fork_or_die();
  if (pid == 0) {
    global = local = *heap = 2;
    char *more = malloc(1000000);
    memset(more, 7, 1000000);
    printf("child: %d %d %d %d\n", global, local, *heap, more[999999]);
    leave(0);
  }
  local += 2;
  wait_for(pid);
  printf("parent: %d %d %d\n", global, local, *heap);
  free(heap);
}

/* 2^depth processes, each of which adds its children's sums to its own number. */
static int tree(int depth, int number) {
  if (depth == 0) return number;
  int pid = fork_or_die();
  if (pid == 0) leave(tree(depth - 1, 2 * number));
  int own = tree(depth - 1, 2 * number + 1);
  return (own + wait_for(pid)) & 0x7f;
}

static int deep(int levels) {
  int kept = levels * 3;
  if (levels == 0) {
    int pid = fork_or_die();
    if (pid == 0) return 1;
    return wait_for(pid);
  }
  int below = deep(levels - 1);
  return (below * 5 + kept) % 199;
}

int main(int count, char **arguments) {
  begin(count, arguments);
  statuses_are_kept();
  a_crash_is_a_signal();
  waiting_for_any_child();
  waiting_without_blocking();
  parents_and_orphans();
  memory_is_private();
  printf("tree: %d\n", tree(4, 1));
  fflush(stdout);
  /* Both sides go on from 2,000 calls down; the child ends like a program that returns from main. */
  int self = getpid(), result = deep(2000);
  if (self != getpid()) leave(result);
  printf("deep: %d\n", result);
  return result % 100;
}
