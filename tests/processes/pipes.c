/* Pipes block, hold bytes in order, and end when their last writer is gone. */
#include "common.h"

#ifndef __wasm__
#include <signal.h>
#endif

enum { MANY = 300000 };

static void pipe_or_die(int fds[2]) {
  if (pipe(fds) < 0) die("pipe");
}

/* Reads to the end: how many bytes, and whether they are what `write_many` writes. */
static void read_many(const char *what, int fd) {
  static unsigned char buffer[7001];
  long total = 0, wrong = 0;
  for (;;) {
    ssize_t length = read(fd, buffer, sizeof buffer);
    if (length < 0) die("read");
    if (length == 0) break;
    for (ssize_t i = 0; i < length; i++) wrong += buffer[i] != (unsigned char)((total + i) * 7 % 251);
    total += length;
  }
  printf("%s: %ld bytes, %ld wrong\n", what, total, wrong);
}

static void write_many(int fd) {
  static unsigned char buffer[9973];
  for (long done = 0; done < MANY;) {
    size_t length = sizeof buffer;
    if ((long)length > MANY - done) length = (size_t)(MANY - done);
    for (size_t i = 0; i < length; i++) buffer[i] = (unsigned char)((done + (long)i) * 7 % 251);
    ssize_t written = write(fd, buffer, length);
    if (written <= 0) die("write");
    done += written;
  }
}

static void a_reader_waits_for_a_writer(void) {
  int fds[2];
  pipe_or_die(fds);
  int pid = fork_or_die();
  if (pid == 0) {
    pause_for_ms(30);
    write_text(fds[1], "late");
    leave(0);
  }
  char text[8] = {0};
  printf("read %d: ", (int)read(fds[0], text, sizeof text));
  printf("%s\n", text);
  wait_for(pid);
  close(fds[0]), close(fds[1]);
}

static void a_writer_waits_for_room(void) {
  int fds[2];
  pipe_or_die(fds);
  int pid = fork_or_die();
  if (pid == 0) {
    close(fds[0]);
    write_many(fds[1]);
    leave(0);
  }
  close(fds[1]);
  pause_for_ms(30);
  read_many("more than a pipe holds", fds[0]);
  printf("status %d\n", wait_for(pid));
  close(fds[0]);
}

static void the_end_comes_with_the_last_writer(void) {
  int fds[2], go[2];
  pipe_or_die(fds);
  pipe_or_die(go);
  int child = fork_or_die();
  if (child == 0) {
    int grandchild = fork_or_die();
    if (grandchild == 0) {
      char byte;
      close(go[1]);
      /* Until the parent has seen that its own child is gone. */
      if (read(go[0], &byte, 1) != 0) die("the pipe should be at its end");
      write_text(fds[1], "grandchild");
      leave(0);
    }
    write_text(fds[1], "child ");
    leave(0);
  }
  close(fds[1]);
  wait_for(child);
  close(go[0]), close(go[1]);
  char text[64];
  size_t length = 0;
  for (ssize_t now; (now = read(fds[0], text + length, sizeof text - length - 1)) > 0;) length += (size_t)now;
  text[length] = 0;
  printf("until the end: %s\n", text);
  close(fds[0]);
}

static void without_readers_a_write_fails(void) {
  int fds[2], go[2];
  pipe_or_die(fds);
  pipe_or_die(go);
  int pid = fork_or_die();
  if (pid == 0) {
    close(fds[0]), close(go[1]);
    char byte = 0;
    /* Until the parent has closed its ends. */
    if (read(go[0], &byte, 1) != 0) die("read");
    errno = 0;
    int result = (int)write(fds[1], &byte, 1);
    printf("write %d, EPIPE %d\n", result, errno == EPIPE);
    leave(0);
  }
  close(fds[0]), close(fds[1]);
  close(go[0]), close(go[1]);
  wait_for(pid);
}

static void a_pipe_cannot_be_read_at_the_wrong_end(void) {
  int fds[2];
  pipe_or_die(fds);
  char byte = 0;
  errno = 0;
  int result = (int)read(fds[1], &byte, 1);
  printf("read %d, EBADF %d\n", result, errno == EBADF);
  errno = 0;
  result = (int)write(fds[0], &byte, 1);
  printf("write %d, EBADF %d\n", result, errno == EBADF);
  errno = 0;
  result = (int)lseek(fds[0], 0, SEEK_CUR);
  printf("lseek %d, ESPIPE %d\n", result, errno == ESPIPE);
  close(fds[0]), close(fds[1]);
}

/* A token goes through a ring of processes a few times; each adds to it. */
static void a_ring(void) {
  enum { PROCESSES = 6, ROUNDS = 20 };
  int ring[PROCESSES][2], pids[PROCESSES];
  for (int i = 0; i < PROCESSES; i++) pipe_or_die(ring[i]);
  for (int i = 1; i < PROCESSES; i++) {
    pids[i] = fork_or_die();
    if (pids[i] != 0) continue;
    for (int round = 0; round < ROUNDS; round++) {
      unsigned token;
      if (read(ring[i][0], &token, sizeof token) != sizeof token) die("read");
      token = token * 31 + (unsigned)i;
      if (write(ring[(i + 1) % PROCESSES][1], &token, sizeof token) != sizeof token) die("write");
    }
    leave(i);
  }
  unsigned token = 1;
  for (int round = 0; round < ROUNDS; round++) {
    if (write(ring[1][1], &token, sizeof token) != sizeof token) die("write");
    if (read(ring[0][0], &token, sizeof token) != sizeof token) die("read");
  }
  printf("token %u\n", token);
  for (int i = 1; i < PROCESSES; i++) printf("process %d ended with %d\n", i, wait_for(pids[i]));
}

int main(int count, char **arguments) {
  begin(count, arguments);
#ifndef __wasm__
  signal(SIGPIPE, SIG_IGN); /* hosts of wasm have no signals; EPIPE is all that there is */
#endif
  a_reader_waits_for_a_writer();
  a_writer_waits_for_room();
  the_end_comes_with_the_last_writer();
  without_readers_a_write_fails();
  a_pipe_cannot_be_read_at_the_wrong_end();
  a_ring();
  return 0;
}
