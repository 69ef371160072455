/* SQLite on a database in memory: creates, fills, indexes, joins, updates, and prints what it finds.
 *
 * usage: sqlite_workload [ROWS]. Rows are printed one write each, from the callback of sqlite3_exec or from
 * user functions inside a query, so that the call stack under a write differs from one to the next.
 */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>

#ifndef ROWS
#define ROWS 3000
#endif

static sqlite3 *db;

static int print_row(void *label, int columns, char **values, char **names) {
  (void)names;
  printf("%s", (const char *)label);
  for (int i = 0; i < columns; i++) printf(" | %s", values[i] ? values[i] : "NULL");
  printf("\n");
  return 0;
}

static void run(const char *label, const char *sql) {
  char *message = NULL;
  if (sqlite3_exec(db, sql, print_row, (void *)label, &message) != SQLITE_OK) {
    printf("%s: error: %s\n", label, message);
    sqlite3_free(message);
    exit(1);
  }
}

/* trace(x): prints x in the middle of the query and returns it. */
static void trace(sqlite3_context *context, int count, sqlite3_value **arguments) {
  (void)count;
  printf("trace %s\n", (const char *)sqlite3_value_text(arguments[0]));
  sqlite3_result_value(context, arguments[0]);
}

static int compare_reversed(void *unused, int left_size, const void *left, int right_size, const void *right) {
  (void)unused;
  static int calls;
  if (++calls % 500 == 0) printf("collation call %d\n", calls);
  const unsigned char *a = left, *b = right;
  for (; left_size > 0 && right_size > 0; left_size--, right_size--) {
    int difference = b[right_size - 1] - a[left_size - 1];
    if (difference != 0) return difference;
  }
  return left_size - right_size;
}

static void fill(int rows) {
  static const char *const cities[] = {"Oslo", "Lima", "Cairo", "Quito", "Delhi", "Turin", "Kyoto"};
  sqlite3_stmt *insert;
  if (sqlite3_prepare_v2(db, "INSERT INTO people VALUES (?, ?, ?, ?)", -1, &insert, NULL) != SQLITE_OK) exit(1);
  unsigned state = 42;
  run("begin", "BEGIN");
  for (int i = 0; i < rows; i++) {
    char name[32];
    state = state * 1664525u + 1013904223u;
    snprintf(name, sizeof name, "person-%05u", (state >> 8) % 100000);
    sqlite3_bind_int(insert, 1, i);
    sqlite3_bind_text(insert, 2, name, -1, SQLITE_TRANSIENT);
    sqlite3_bind_text(insert, 3, cities[(state >> 4) % 7], -1, SQLITE_STATIC);
    sqlite3_bind_double(insert, 4, (state >> 16) / 16.0);
    if (sqlite3_step(insert) != SQLITE_DONE) exit(1);
    sqlite3_reset(insert);
  }
  run("commit", "COMMIT");
  sqlite3_finalize(insert);
}

int main(int argc, char **argv) {
  int rows = argc > 1 ? atoi(argv[1]) : ROWS;
  setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
  printf("SQLite %s, %d rows\n", sqlite3_libversion(), rows);
  if (sqlite3_open(":memory:", &db) != SQLITE_OK) return 1;
  sqlite3_create_function(db, "trace", 1, SQLITE_UTF8, NULL, trace, NULL, NULL);
  sqlite3_create_collation(db, "reversed", SQLITE_UTF8, NULL, compare_reversed);

  run("create", "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, city TEXT, score REAL);"
                "CREATE TABLE visits (person INTEGER, day INTEGER, note TEXT);");
  fill(rows);
  run("index", "CREATE INDEX by_city ON people (city, score); CREATE INDEX by_name ON people (name COLLATE reversed)");
  run("visits", "INSERT INTO visits SELECT id, (id * 7) % 31, 'note ' || name FROM people WHERE id % 3 = 0");
  run("trigger", "CREATE TRIGGER moved AFTER UPDATE OF city ON people BEGIN"
                 " INSERT INTO visits VALUES (new.id, -1, trace('moved ' || old.name || ' to ' || new.city)); END");

  run("city", "SELECT city, count(*), printf('%.3f', avg(score)), max(name) FROM people GROUP BY city ORDER BY city");
  run("row", "SELECT id, name, city, score FROM people ORDER BY score DESC, id");
  run("update", "UPDATE people SET city = 'Quito' WHERE city = 'Oslo' AND id % 10 = 1");
  run("join", "SELECT p.city, v.day, count(*), group_concat(substr(p.name, 8), ',') FROM people p"
              " JOIN visits v ON v.person = p.id WHERE v.day BETWEEN 0 AND 5 GROUP BY p.city, v.day ORDER BY 1, 2");
  run("window", "SELECT id, name, rank() OVER (PARTITION BY city ORDER BY score DESC, id) AS place FROM people"
                " WHERE id < 200 ORDER BY place DESC, id LIMIT 50");
  run("recursive", "WITH RECURSIVE walk(n, s) AS (SELECT 1, '1' UNION ALL SELECT n + 1, trace(n * n) FROM walk"
                   " WHERE n < 40) SELECT n, s FROM walk WHERE n % 4 = 0");
  run("reversed", "SELECT name FROM people ORDER BY name COLLATE reversed LIMIT 20");
  run("json", "SELECT json_group_array(json_object('id', id, 'name', name)) FROM people WHERE id < 5");
  run("delete", "DELETE FROM people WHERE score < 1000");
  run("left", "SELECT count(*), sum(id), printf('%.4f', total(score)) FROM people");
  run("vacuum", "VACUUM");
  run("check", "PRAGMA integrity_check");
  sqlite3_close(db);
  printf("done, %lld bytes still in use\n", (long long)sqlite3_memory_used());
  return 0;
}
