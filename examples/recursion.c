/* Forks at several depths of a recursion whose every activation holds live values of all numeric types.
 *
 * The parent waits for the child before it goes on, so the output has one order. Both sides return through
 * all the activations below, which fold every value that was live across the fork into a digest: one wrong
 * bit anywhere in a frame changes the last line.
 */
#include "posix.h"
#include <stdint.h>

typedef float floats __attribute__((vector_size(16)));
typedef int32_t ints __attribute__((vector_size(16)));

enum { DEPTH = 24 };

static char path[64] = "main"; /* which side of each fork this process is */

static uint64_t mix(uint64_t digest, uint64_t value) {
  digest ^= value + 0x9e3779b97f4a7c15u + (digest << 6) + (digest >> 2);
  return digest * 0xff51afd7ed558ccdu;
}

static uint64_t bits_of(double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

static void fork_here(int depth) {
  int pid = fork_or_die();
  if (pid == 0) {
    strcat(path, ".child");
    printf("%s: goes on at depth %d\n", path, depth);
    return;
  }
  int status = wait_for(pid);
  printf("%s: the child forked at depth %d exited with %d\n", path, depth, status);
}

__attribute__((noinline)) static uint64_t walk(int32_t depth, int64_t wide, float single, double twice,
                                               floats quad) {
  int32_t a = depth * 7 + 1;
  uint32_t b = (uint32_t)wide ^ 0xdeadbeef;
  int64_t c = wide * 31 - depth;
  uint64_t d = (uint64_t)wide >> 3;
  float e = single * 0.5f + 1.0f;
  float f = single - 3.25f;
  double g = twice * 1.5 - 0.25;
  double h = twice + depth;
  floats v = quad * 2.0f + (floats){1, 2, 3, 4};
  ints w = (ints){a, a + 1, a + 2, a + 3} ^ (ints){depth, 0, depth, 0};

  if (depth == 3 || depth == 11 || depth == 20) fork_here(depth);
  uint64_t digest = 1;
  if (depth < DEPTH) digest = walk(depth + 1, c, e, g, v);

  digest = mix(digest, (uint64_t)a);
  digest = mix(digest, b);
  digest = mix(digest, (uint64_t)c);
  digest = mix(digest, d);
  digest = mix(digest, bits_of(e));
  digest = mix(digest, bits_of(f));
  digest = mix(digest, bits_of(g));
  digest = mix(digest, bits_of(h));
  for (int lane = 0; lane < 4; lane++) digest = mix(mix(digest, bits_of(v[lane])), (uint64_t)w[lane]);
  digest = mix(digest, (uint64_t)wide);
  digest = mix(digest, bits_of(single));
  digest = mix(digest, bits_of(twice));
  return digest;
}

int main(void) {
  uint64_t digest = walk(0, 0x123456789abcdef, 1.25f, -2.5, (floats){0.5f, -1, 8, 0});
  printf("%s: digest %08x%08x\n", path, (unsigned)(digest >> 32), (unsigned)digest);
  leave(strcmp(path, "main") == 0 ? 0 : (int)(digest & 0x7f));
}
