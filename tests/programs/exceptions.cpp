// C++ exceptions: thrown through frames with destructors that write, caught, rethrown, and nested in handlers.
//
// usage: exceptions
#include <cstdio>

struct Guard {
  explicit Guard(int number) : number(number) { std::printf("enter %d\n", number); }
  ~Guard() { std::printf("leave %d\n", number); }
  int number;
};

struct Failure {
  virtual ~Failure() = default;
  virtual int code() const { return 1; }
};

struct Special : Failure {
  explicit Special(int value) : value(value) {}
  int code() const override { return value; }
  int value;
};

__attribute__((noinline)) static int descend(int depth, int how) {
  Guard guard(depth);
  if (depth == 0) {
    if (how == 0) throw 42;
    if (how == 1) throw Special(how * 100);
    if (how == 2) throw "text";
    return how;
  }
  try {
    return descend(depth - 1, how) + guard.number;
  } catch (const Failure &failure) {
    std::printf("at %d: failure %d\n", depth, failure.code());
    if (depth < 3) throw;
    return failure.code();
  } catch (const char *text) {
    std::printf("at %d: %s\n", depth, text);
    try {
      descend(0, 0);
    } catch (int number) {
      std::printf("inside the handler: %d\n", number);
    }
    throw Special(depth);
  }
}

int main() {
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);
  for (int how = 0; how < 4; how++) {
    try {
      std::printf("result %d\n", descend(5, how));
    } catch (...) {
      std::printf("how %d: nobody caught it\n", how);
    }
  }
  return 0;
}
