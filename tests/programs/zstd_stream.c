/* Zstandard compresses text in a stream and expands it again, at levels that use different match finders.
 *
 * usage: zstd_stream [KILOBYTES]. An allocator of ours prints, so that a write happens inside the library too.
 */
#define ZSTD_STATIC_LINKING_ONLY
#include "text.h"
#include "zstd.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *allocate(void *opaque, size_t size) {
  printf("%s: allocate %u\n", (const char *)opaque, (unsigned)size);
  return malloc(size);
}

static void release(void *opaque, void *pointer) {
  printf("%s: release\n", (const char *)opaque);
  free(pointer);
}

static void check(size_t code) {
  if (!ZSTD_isError(code)) return;
  printf("error: %s\n", ZSTD_getErrorName(code));
  exit(1);
}

static void roundtrip(int level, const char *text, size_t size, char *packed, size_t room, char *again) {
  ZSTD_customMem memory = {allocate, release, "zstd"};
  ZSTD_CCtx *compressor = ZSTD_createCCtx_advanced(memory);
  check(ZSTD_CCtx_setParameter(compressor, ZSTD_c_compressionLevel, level));
  check(ZSTD_CCtx_setParameter(compressor, ZSTD_c_checksumFlag, 1));
  ZSTD_outBuffer out = {packed, room, 0};
  size_t left = 1;
  for (size_t at = 0; left != 0 || at < size;) {
    size_t piece = size - at < 20000 ? size - at : 20000;
    ZSTD_inBuffer in = {text + at, piece, 0};
    check(left = ZSTD_compressStream2(compressor, &out, &in, at + piece == size ? ZSTD_e_end : ZSTD_e_continue));
    at += in.pos;
    printf("level %d: in %u out %u\n", level, (unsigned)at, (unsigned)out.pos);
    if (at < size) left = 1;
  }
  ZSTD_freeCCtx(compressor);
  printf("level %d: hash %08x\n", level, hash_of(packed, out.pos));

  ZSTD_DCtx *expander = ZSTD_createDCtx_advanced(memory);
  ZSTD_inBuffer in = {packed, out.pos, 0};
  ZSTD_outBuffer back = {again, 0, 0};
  while (in.pos < in.size) {
    back.size = back.pos + 20000 < size ? back.pos + 20000 : size;
    check(ZSTD_decompressStream(expander, &back, &in));
    printf("level %d: back %u\n", level, (unsigned)back.pos);
  }
  ZSTD_freeDCtx(expander);
  printf("level %d: %s\n", level, back.pos == size && memcmp(text, again, size) == 0 ? "same" : "different");
}

int main(int argc, char **argv) {
  setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
  size_t size = (argc > 1 ? (size_t)atoi(argv[1]) : 512) * 1024, room = ZSTD_compressBound(size);
  char *text = malloc(size), *packed = malloc(room), *again = malloc(size);
  fill_with_text(text, size);
  static const int levels[] = {-5, 1, 3, 6, 13, 17};
  for (int i = 0; i < 6; i++) roundtrip(levels[i], text, size, packed, room, again);
  return 0;
}
