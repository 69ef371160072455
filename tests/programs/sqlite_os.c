/* What SQLite asks of the operating system where there is none (SQLITE_OS_OTHER): databases in memory only, a clock that
 * stands still, random bytes that are always the same.
 */
#include <sqlite3.h>
#include <string.h>

static int open_nothing(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out_flags) {
  (void)vfs, (void)name, (void)flags, (void)out_flags;
  file->pMethods = NULL;
  return SQLITE_CANTOPEN;
}

static int delete_nothing(sqlite3_vfs *vfs, const char *name, int sync) {
  (void)vfs, (void)name, (void)sync;
  return SQLITE_IOERR_DELETE_NOENT;
}

static int find_nothing(sqlite3_vfs *vfs, const char *name, int flags, int *found) {
  (void)vfs, (void)name, (void)flags;
  *found = 0;
  return SQLITE_OK;
}

static int copy_name(sqlite3_vfs *vfs, const char *name, int size, char *full_name) {
  (void)vfs;
  if (strlen(name) >= (size_t)size) return SQLITE_CANTOPEN;
  strcpy(full_name, name);
  return SQLITE_OK;
}

static int fill_with_zeros(sqlite3_vfs *vfs, int size, char *bytes) {
  (void)vfs;
  memset(bytes, 0, (size_t)size);
  return size;
}

static int sleep_never(sqlite3_vfs *vfs, int microseconds) {
  (void)vfs, (void)microseconds;
  return 0;
}

static int last_error(sqlite3_vfs *vfs, int size, char *message) {
  (void)vfs, (void)size, (void)message;
  return 0;
}

/* Milliseconds since noon of the first day of the Julian calendar: the start of the year 2000. */
static int stopped_clock(sqlite3_vfs *vfs, sqlite3_int64 *now) {
  (void)vfs;
  *now = 2451544LL * 86400000 + 43200000;
  return SQLITE_OK;
}

int sqlite3_os_init(void) {
  static sqlite3_vfs nowhere = {.iVersion = 2,
                                .szOsFile = sizeof(sqlite3_file),
                                .mxPathname = 64,
                                .zName = "nowhere",
                                .xOpen = open_nothing,
                                .xDelete = delete_nothing,
                                .xAccess = find_nothing,
                                .xFullPathname = copy_name,
                                .xRandomness = fill_with_zeros,
                                .xSleep = sleep_never,
                                .xGetLastError = last_error,
                                .xCurrentTimeInt64 = stopped_clock};
  return sqlite3_vfs_register(&nowhere, 1);
}

int sqlite3_os_end(void) { return SQLITE_OK; }
