/* A key-value store in memory that saves itself the way Redis does: a forked child writes the snapshot from
 * its copy of the memory, while the parent goes on changing the store.
 *
 * The child waits for a byte on one pipe, which the parent sends only after its changes, and writes the
 * snapshot to another. The snapshot must be the store as it was when fork() was called.
 */
#include "posix.h"

enum { BUCKETS = 64 };

struct entry {
  struct entry *next;
  char *key, *value;
};

static struct entry *buckets[BUCKETS];
static int size;

static char *copy(const char *text) {
  char *result = malloc(strlen(text) + 1);
  return strcpy(result, text);
}

static struct entry **find(const char *key) {
  unsigned hash = 5381;
  for (const char *c = key; *c; c++) hash = hash * 33 + (unsigned char)*c;
  struct entry **link = &buckets[hash % BUCKETS];
  while (*link && strcmp((*link)->key, key) != 0) link = &(*link)->next;
  return link;
}

static void set(const char *key, const char *value) {
  struct entry **link = find(key);
  if (*link) {
    free((*link)->value);
  } else {
    *link = calloc(1, sizeof **link);
    (*link)->key = copy(key);
    size++;
  }
  (*link)->value = copy(value);
}

static void delete(const char *key) {
  struct entry **link = find(key), *entry = *link;
  if (!entry) return;
  *link = entry->next;
  free(entry->key);
  free(entry->value);
  free(entry);
  size--;
}

static const char *get(const char *key) {
  struct entry *entry = *find(key);
  return entry ? entry->value : "(none)";
}

static void write_all(int fd, const char *data, size_t length) {
  while (length > 0) {
    ssize_t written = write(fd, data, length);
    if (written <= 0) die("write");
    data += written;
    length -= (size_t)written;
  }
}

/* Writes the store bucket by bucket, one write a line. */
static int save(int fd) {
  char line[128];
  int count = 0;
  for (int i = 0; i < BUCKETS; i++) {
    for (struct entry *entry = buckets[i]; entry; entry = entry->next, count++) {
      int length = snprintf(line, sizeof line, "%s=%s\n", entry->key, entry->value);
      write_all(fd, line, (size_t)length);
    }
  }
  return count;
}

static void print_some(const char *who) {
  printf("%s: %d keys; key3=%s key50=%s key99=%s new=%s\n", who, size, get("key3"), get("key50"), get("key99"),
         get("new"));
}

static unsigned digest;

/* Reads lines of a snapshot from a pipe, until its end, into the store. */
static int load(int fd) {
  char line[128];
  int length = 0, count = 0;
  char byte;
  digest = 2166136261u;
  while (read(fd, &byte, 1) == 1) {
    digest = (digest ^ (unsigned char)byte) * 16777619u;
    if (byte != '\n') {
      line[length++] = byte;
      continue;
    }
    line[length] = 0;
    char *value = strchr(line, '=');
    *value++ = 0;
    set(line, value);
    length = 0;
    count++;
  }
  return count;
}

int main(void) {
  char key[16], value[32];
  for (int i = 0; i < 100; i++) {
    snprintf(key, sizeof key, "key%d", i);
    snprintf(value, sizeof value, "%d", i * i);
    set(key, value);
  }
  print_some("parent before");

  int go[2], snapshot[2];
  if (pipe(go) < 0 || pipe(snapshot) < 0) die("pipe");
  int child = fork_or_die();
  if (child == 0) {
    char byte;
    close(go[1]);
    close(snapshot[0]);
    if (read(go[0], &byte, 1) != 1) die("read");
    leave(save(snapshot[1]));
  }
  close(go[0]);
  close(snapshot[1]);

  for (int i = 0; i < 100; i += 3) {
    snprintf(key, sizeof key, "key%d", i);
    set(key, "changed");
  }
  for (int i = 50; i < 60; i++) {
    snprintf(key, sizeof key, "key%d", i);
    delete (key);
  }
  set("new", "yes");
  print_some("parent after");
  write_all(go[1], "!", 1);

  /* Everything goes, and what the child wrote comes back. */
  for (int i = 0; i < BUCKETS; i++) {
    while (buckets[i]) delete (buckets[i]->key);
  }
  int loaded = load(snapshot[0]);
  printf("child: wrote %d keys\n", wait_for(child));
  printf("parent: loaded %d keys, digest %08x\n", loaded, digest);
  print_some("snapshot");
  return 0;
}
