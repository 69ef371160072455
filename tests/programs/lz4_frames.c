/* LZ4 compresses text to a frame and back, at two levels, block by block.
 *
 * usage: lz4_frames [KILOBYTES].
 */
#include "lz4frame.h"
#include "text.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(size_t code) {
  if (!LZ4F_isError(code)) return;
  printf("error: %s\n", LZ4F_getErrorName(code));
  exit(1);
}

int main(int argc, char **argv) {
  setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
  size_t size = (argc > 1 ? (size_t)atoi(argv[1]) : 512) * 1024;
  char *text = malloc(size), *again = malloc(size);
  fill_with_text(text, size);

  for (int level = 0; level <= 9; level += 9) {
    LZ4F_preferences_t preferences;
    memset(&preferences, 0, sizeof preferences);
    preferences.compressionLevel = level;
    preferences.frameInfo.contentChecksumFlag = LZ4F_contentChecksumEnabled;
    size_t room = LZ4F_compressBound(size, &preferences) + 1024, length, at;
    char *packed = malloc(room);
    LZ4F_cctx *compressor;
    check(LZ4F_createCompressionContext(&compressor, LZ4F_VERSION));
    check(length = LZ4F_compressBegin(compressor, packed, room, &preferences));
    for (at = 0; at < size; at += 5000) {
      size_t piece = size - at < 5000 ? size - at : 5000, written;
      check(written = LZ4F_compressUpdate(compressor, packed + length, room - length, text + at, piece, NULL));
      length += written;
      printf("level %d: in %u out %u\n", level, (unsigned)(at + piece), (unsigned)length);
    }
    size_t last;
    check(last = LZ4F_compressEnd(compressor, packed + length, room - length, NULL));
    length += last;
    LZ4F_freeCompressionContext(compressor);
    printf("level %d: hash %08x\n", level, hash_of(packed, length));

    LZ4F_dctx *expander;
    check(LZ4F_createDecompressionContext(&expander, LZ4F_VERSION));
    size_t done = 0, hint = 1;
    for (at = 0; hint != 0 && at < length;) {
      size_t produced = size - done, consumed = length - at < 3000 ? length - at : 3000;
      check(hint = LZ4F_decompress(expander, again + done, &produced, packed + at, &consumed, NULL));
      done += produced;
      at += consumed;
      printf("level %d: back %u\n", level, (unsigned)done);
    }
    LZ4F_freeDecompressionContext(expander);
    printf("level %d: %s\n", level, done == size && memcmp(text, again, size) == 0 ? "same" : "different");
    free(packed);
  }
  return 0;
}
