/* bzip2 compresses text and expands it again, in small pieces.
 *
 * usage: bzip2_roundtrip [KILOBYTES]. The allocator that the library calls back prints what it is asked for,
 * so that a write happens inside of bzip2 too.
 */
#include "bzlib.h"
#include "text.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *allocate(void *opaque, int count, int size) {
  (void)opaque;
  printf("allocate %d x %d\n", count, size);
  return malloc((size_t)count * (size_t)size);
}

static void release(void *opaque, void *pointer) {
  (void)opaque;
  printf("release\n");
  free(pointer);
}

/* bzlib calls this where an assertion fails. */
void bz_internal_error(int code) {
  printf("bzip2 internal error %d\n", code);
  exit(1);
}

int main(int argc, char **argv) {
  setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
  unsigned size = (argc > 1 ? (unsigned)atoi(argv[1]) : 256) * 1024, room = size + size / 64 + 1024;
  char *text = malloc(size), *packed = malloc(room), *again = malloc(size);
  fill_with_text(text, size);

  bz_stream stream;
  memset(&stream, 0, sizeof stream);
  stream.bzalloc = allocate;
  stream.bzfree = release;
  if (BZ2_bzCompressInit(&stream, 1, 0, 0) != BZ_OK) return 1;
  stream.next_out = packed;
  stream.avail_out = room;
  int result = BZ_RUN_OK;
  for (unsigned at = 0; result != BZ_STREAM_END;) {
    unsigned piece = size - at < 8192 ? size - at : 8192;
    stream.next_in = text + at;
    stream.avail_in = piece;
    result = BZ2_bzCompress(&stream, piece ? BZ_RUN : BZ_FINISH);
    if (result < 0) return 1;
    at += piece - stream.avail_in;
    printf("in %u out %u\n", stream.total_in_lo32, stream.total_out_lo32);
  }
  unsigned length = stream.total_out_lo32;
  BZ2_bzCompressEnd(&stream);
  printf("%u bytes packed to %u, hash %08x\n", size, length, hash_of(packed, length));

  if (BZ2_bzDecompressInit(&stream, 0, 1) != BZ_OK) return 1;
  stream.next_in = packed;
  stream.avail_in = length;
  stream.next_out = again;
  do {
    stream.avail_out = 4000;
    result = BZ2_bzDecompress(&stream);
    printf("back %u\n", stream.total_out_lo32);
  } while (result == BZ_OK);
  BZ2_bzDecompressEnd(&stream);
  printf("%s\n", result == BZ_STREAM_END && memcmp(text, again, size) == 0 ? "same" : "different");
  return 0;
}
