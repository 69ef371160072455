/* zlib writes a gzip stream to standard output, through its own file functions, and checks it in memory.
 *
 * usage: zlib_gzip [KILOBYTES]. The compressed bytes leave in many small writes, from inside deflate's caller.
 */
#include "text.h"
#include "zlib.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
  unsigned size = (argc > 1 ? (unsigned)atoi(argv[1]) : 256) * 1024;
  char *text = malloc(size), *again = malloc(size);
  fill_with_text(text, size);

  gzFile out = gzdopen(1, "wb6");
  if (!out) return 1;
  gzbuffer(out, 512);
  for (unsigned at = 0; at < size; at += 1000) {
    gzwrite(out, text + at, size - at < 1000 ? size - at : 1000);
    if (at % 10000 == 0) gzflush(out, Z_SYNC_FLUSH);
  }
  for (int i = 0; i < 100; i++) gzprintf(out, "line %d of %s\n", i, zlibVersion());
  if (gzflush(out, Z_FINISH) != Z_OK) return 1;

  setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
  for (int level = 0; level <= 9; level++) {
    uLongf packed_size = compressBound(size), again_size = size;
    Bytef *packed = malloc(packed_size);
    int packing = compress2(packed, &packed_size, (const Bytef *)text, size, level);
    int unpacking = uncompress((Bytef *)again, &again_size, packed, packed_size);
    printf("\nlevel %d: %lu bytes, crc %08lx, %d %d %s\n", level, (unsigned long)packed_size,
           crc32(0, packed, (uInt)packed_size), packing, unpacking,
           again_size == size && memcmp(text, again, size) == 0 ? "same" : "different");
    free(packed);
  }
  return 0;
}
