/* Oniguruma searches text for patterns, and calls back for the named groups of matches.
 *
 * usage: onig_search [REPEATS].
 */
#include "oniguruma.h"
#include "text.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const patterns[] = {
    "(?<who>parent|child) (?<what>\\w+)", "\\b(\\w)\\w*\\1\\b",    "(?:fork |the )+(?=stack)",
    "(?i)PROCESS\\n(?!fork)",             "[[:alpha:]]{7,} in \\w", "(?<p>of|(?:a \\g<p>)) ",
    "a*?b+(c|d)?"};

static int name_group(const UChar *name, const UChar *end, int count, int *groups, OnigRegex regex, void *region) {
  (void)regex;
  OnigRegion *at = region;
  printf("  group %.*s (%d): %d to %d\n", (int)(end - name), (const char *)name, count, at->beg[groups[0]],
         at->end[groups[0]]);
  return 0;
}

static void search(int number, const char *text, size_t size) {
  const UChar *pattern = (const UChar *)patterns[number], *start = (const UChar *)text, *end = start + size;
  OnigRegex regex;
  OnigErrorInfo info;
  int result = onig_new(&regex, pattern, pattern + strlen(patterns[number]), ONIG_OPTION_CAPTURE_GROUP,
                        ONIG_ENCODING_UTF8, ONIG_SYNTAX_ONIGURUMA, &info);
  if (result != ONIG_NORMAL) {
    UChar message[ONIG_MAX_ERROR_MESSAGE_LEN];
    onig_error_code_to_str(message, result, &info);
    printf("pattern %d: %s\n", number, (const char *)message);
    return;
  }
  OnigRegion *region = onig_region_new();
  int matches = 0;
  for (const UChar *from = start; from < end;) {
    int at = onig_search(regex, start, end, from, end, region, ONIG_OPTION_NONE);
    if (at < 0) break;
    if (matches++ % 8 == 0) {
      int length = region->end[0] - at;
      printf("  at %d: %.*s\n", at, length > 40 ? 40 : length, text + at);
      onig_foreach_name(regex, name_group, region);
    }
    from = start + (region->end[0] > at ? region->end[0] : at + 1);
  }
  printf("pattern %d: %d matches of %s\n", number, matches, patterns[number]);
  onig_region_free(region, 1);
  onig_free(regex);
}

int main(int argc, char **argv) {
  setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
  int repeats = argc > 1 ? atoi(argv[1]) : 2;
  size_t size = 8000;
  char *text = malloc(size);
  fill_with_text(text, size);
  OnigEncoding encodings[] = {ONIG_ENCODING_UTF8};
  onig_initialize(encodings, 1);
  for (int i = 0; i < repeats; i++) {
    for (int number = 0; number < (int)(sizeof patterns / sizeof patterns[0]); number++) search(number, text, size);
  }
  onig_end();
  return 0;
}
