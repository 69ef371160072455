/* Open file descriptions are shared across fork: offsets and flags are; descriptors themselves are not. */
#include "common.h"

static void show_offset(const char *when, int fd) { printf("%s: offset %d\n", when, (int)lseek(fd, 0, SEEK_CUR)); }

static void show_file(const char *name) {
  char text[256];
  int fd = open_or_die(name, O_RDONLY);
  ssize_t length = read(fd, text, sizeof text - 1);
  if (length < 0) die("read");
  text[length] = 0;
  close(fd);
  printf("%s holds '%s'\n", name, text);
}

static void writes_follow_each_other(void) {
  int fd = open_or_die("shared", O_RDWR | O_CREAT | O_TRUNC);
  write_text(fd, "parent ");
  int pid = fork_or_die();
  if (pid == 0) {
    show_offset("child", fd);
    write_text(fd, "child ");
    leave(0);
  }
  wait_for(pid);
  show_offset("after the child wrote", fd);
  write_text(fd, "again");
  show_file("shared");
  close(fd);
}

static void seeks_and_reads_move_the_one_offset(void) {
  int fd = open_or_die("digits", O_RDWR | O_CREAT | O_TRUNC);
  write_text(fd, "0123456789");
  lseek(fd, 0, SEEK_SET);
  for (int i = 0; i < 3; i++) {
    int pid = fork_or_die();
    char byte = 0;
    if (pid == 0) {
      if (read(fd, &byte, 1) != 1) die("read");
      printf("child read %c\n", byte);
      leave(0);
    }
    wait_for(pid);
    if (read(fd, &byte, 1) != 1) die("read");
    printf("parent read %c\n", byte);
  }
  int pid = fork_or_die();
  if (pid == 0) {
    lseek(fd, -2, SEEK_END);
    leave(0);
  }
  wait_for(pid);
  show_offset("after the child's lseek", fd);
  close(fd);
}

static void opening_again_has_an_offset_of_its_own(void) {
  int one = open_or_die("digits", O_RDONLY), other = open_or_die("digits", O_RDONLY);
  lseek(one, 7, SEEK_SET);
  show_offset("the other", other);
  if (dup2(one, other) != other) die("dup2");
  lseek(one, 3, SEEK_SET);
  show_offset("the other, as a duplicate", other);
  close(one);
  show_offset("the duplicate of what is closed", other);
  close(other);
}

static void closing_and_opening_are_private(void) {
  int fd = open_or_die("digits", O_RDONLY);
  int pid = fork_or_die();
  if (pid == 0) {
    close(fd);
    int again = open_or_die("shared", O_RDONLY);
    printf("child: the number is free: %d\n", again == fd);
    open_or_die("shared", O_RDONLY);
    leave(0);
  }
  wait_for(pid);
  char byte;
  printf("parent still reads: %d\n", (int)read(fd, &byte, 1));
  errno = 0;
  int missing = (int)read(fd + 1, &byte, 1);
  printf("the child's descriptor is not here: %d, EBADF %d\n", missing, errno == EBADF);
  close(fd);
}

static void status_flags_are_shared(void) {
  int fd = open_or_die("appended", O_RDWR | O_CREAT | O_TRUNC);
  write_text(fd, "first ");
  int pid = fork_or_die();
  if (pid == 0) {
    if (fcntl(fd, F_SETFL, O_APPEND) < 0) die("fcntl");
    leave(0);
  }
  wait_for(pid);
  lseek(fd, 0, SEEK_SET);
  write_text(fd, "last");
  printf("appends: %d\n", (fcntl(fd, F_GETFL) & O_APPEND) != 0);
  show_file("appended");
  close(fd);
}

static void many_append_to_one_file(void) {
  int fd = open_or_die("lines", O_WRONLY | O_CREAT | O_TRUNC | O_APPEND);
  int pids[8];
  for (int i = 0; i < 8; i++) {
    pids[i] = fork_or_die();
    if (pids[i] == 0) {
      for (int j = 0; j < 50; j++) write_text(fd, "0123456789abcde\n");
      leave(0);
    }
  }
  for (int i = 0; i < 8; i++) wait_for(pids[i]);
  struct stat status;
  if (fstat(fd, &status) < 0) die("fstat");
  printf("%d bytes in whole lines\n", (int)status.st_size);
  close(fd);
}

static void names_are_everybodys(void) {
  int pid = fork_or_die();
  if (pid == 0) {
    if (mkdir(in_folder("made"), 0755) < 0) die("mkdir");
    int fd = open_or_die("made/one", O_WRONLY | O_CREAT);
    write_text(fd, "from the child");
    close(fd);
    if (rename(in_folder("made/one"), in_folder("made/two")) < 0) die("rename");
    if (unlink(in_folder("shared")) < 0) die("unlink");
    leave(0);
  }
  wait_for(pid);
  struct stat status;
  int one = stat(in_folder("made/one"), &status);
  printf("one %d, ENOENT %d\n", one, errno == ENOENT);
  int two = stat(in_folder("made/two"), &status);
  printf("two %d, %d bytes\n", two, (int)status.st_size);
  printf("shared %d\n", open(in_folder("shared"), O_RDONLY));
}

int main(int count, char **arguments) {
  begin(count, arguments);
  writes_follow_each_other();
  seeks_and_reads_move_the_one_offset();
  opening_again_has_an_offset_of_its_own();
  closing_and_opening_are_private();
  status_flags_are_shared();
  many_append_to_one_file();
  names_are_everybodys();
  return 0;
}
