/* What a shell does for `generate | sort | uniq -c`: a process for each stage, pipes between them.
 *
 * Each stage is a function here instead of a program to exec. The parent forks all three, closes its ends of
 * the pipes, waits, and says who did what.
 */
#include "posix.h"

enum { LINES = 60, LINE = 32 };

static int read_line(char line[LINE]) {
  int length = 0;
  char byte;
  while (read(STDIN_FILENO, &byte, 1) == 1) {
    if (byte == '\n') {
      line[length] = 0;
      return 1;
    }
    if (length < LINE - 1) line[length++] = byte;
  }
  return 0;
}

static int generate(void) {
  static const char *const animals[] = {"emu", "ant", "dog", "cat", "bee", "fox", "gnu"};
  for (unsigned i = 0; i < LINES; i++) printf("%s\n", animals[(i * i + i / 3) % 7]);
  return LINES;
}

static int compare_lines(const void *left, const void *right) {
  return strcmp((const char *)left, (const char *)right);
}

static int sort(void) {
  static char lines[LINES][LINE];
  int count = 0;
  while (count < LINES && read_line(lines[count])) count++;
  qsort(lines, (size_t)count, LINE, compare_lines);
  for (int i = 0; i < count; i++) printf("%s\n", lines[i]);
  return count;
}

static int uniq(void) {
  char line[LINE], last[LINE];
  int repeats = 0, groups = 0;
  while (read_line(line)) {
    if (repeats > 0 && strcmp(line, last) != 0) {
      printf("%7d %s\n", repeats, last);
      repeats = 0;
    }
    if (repeats++ == 0) groups++;
    strcpy(last, line);
  }
  if (repeats > 0) printf("%7d %s\n", repeats, last);
  return groups;
}

struct stage {
  const char *name;
  int (*run)(void);
  int pid;
};

/* Forks a process whose input and output are the given descriptors; the rest of the pipe is closed in it. */
static void start(struct stage *stage, int input, int output, int unused) {
  stage->pid = fork_or_die();
  if (stage->pid != 0) return;
  if (input != STDIN_FILENO) {
    if (dup2(input, STDIN_FILENO) < 0) die("dup2");
    close(input);
  }
  if (output != STDOUT_FILENO) {
    if (dup2(output, STDOUT_FILENO) < 0) die("dup2");
    close(output);
  }
  if (unused >= 0) close(unused);
  leave(stage->run());
}

int main(void) {
  struct stage stages[] = {{"generate", generate, 0}, {"sort", sort, 0}, {"uniq -c", uniq, 0}};
  enum { STAGES = sizeof stages / sizeof stages[0] };
  printf("parent: running generate | sort | uniq -c\n");

  int input = STDIN_FILENO;
  for (int i = 0; i < STAGES; i++) {
    int fds[2] = {-1, STDOUT_FILENO};
    if (i + 1 < STAGES && pipe(fds) < 0) die("pipe");
    start(&stages[i], input, fds[1], fds[0]);
    if (input != STDIN_FILENO) close(input);
    if (fds[1] != STDOUT_FILENO) close(fds[1]);
    input = fds[0];
  }
  for (int i = 0; i < STAGES; i++) {
    int lines = wait_for(stages[i].pid);
    printf("parent: child %d (%s) wrote %d lines\n", i + 1, stages[i].name, lines);
  }
  return 0;
}
