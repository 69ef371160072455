#include "tool.h"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <pthread.h>
#include <sys/mman.h>
#include <thread>
#include <unistd.h>

#include "fork-instrument/src/ir/ffi.rs.h"
#include "support/file.h"
#include "support/threads.h"

int binaryen_wasm_opt_main(int argc, const char* argv[]);

namespace wasm {

// How the tool ends the process, which it does only after success: the outputs are put in their places first.
[[noreturn]] void binaryen_wasm_opt_exit(int code) {
  std::cout.flush();
  // The error flag stays, whichever stream noticed.
  if (code == EXIT_SUCCESS && (std::fflush(stdout) != 0 || std::ferror(stdout))) {
    std::cerr << "Fatal: Failed writing to standard output" << std::endl;
    code = EXIT_FAILURE;
  }
  if (code == EXIT_SUCCESS && !fork_instrument::finish_outputs()) {
    code = EXIT_FAILURE;
  }
  flush_and_quick_exit(code);
}

} // namespace wasm

namespace fork_instrument {

namespace {

// Binaryen and the pass recurse over nested code; pages of a stack are only used when they are reached.
#ifdef __GLIBC__
constexpr size_t LargeStack = size_t(1) << 30;
constexpr size_t OrdinaryStack = size_t(8) << 20;

// Whether the process could have this much more memory, for the stacks and as much again for its work.
bool has_room(size_t bytes) {
  auto* room = mmap(nullptr, 2 * bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return room != MAP_FAILED && munmap(room, 2 * bytes) == 0;
}
#endif

// Makes new threads, the tool's and those of Binaryen's pool, have stacks as large as there is room for: Binaryen does
// not get over a thread that cannot be made.
void ask_for_large_stacks() {
#ifdef __GLIBC__
  auto threads = wasm::ThreadPool::getNumCores() + 1;
  auto size = LargeStack;
  while (size > OrdinaryStack && !has_room(threads * size)) {
    size /= 2;
  }
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) == 0) {
    if (pthread_attr_setstacksize(&attributes, size) == 0) {
      pthread_setattr_default_np(&attributes);
    }
    pthread_attr_destroy(&attributes);
  }
#endif
}

} // namespace

int32_t run_wasm_opt(rust::Slice<const uint8_t> arguments) {
  std::vector<std::string> strings;
  for (auto byte : arguments) {
    if (strings.empty()) {
      strings.emplace_back();
    }
    if (byte) {
      strings.back().push_back(char(byte));
    } else {
      strings.emplace_back();
    }
  }
  strings.pop_back();
  std::vector<const char*> pointers;
  for (auto& string : strings) {
    pointers.push_back(string.c_str());
  }
  pointers.push_back(nullptr);
  ask_for_large_stacks();
  int32_t status = EXIT_FAILURE;
  std::exception_ptr error;
  std::thread tool([&]() {
    try {
      status = binaryen_wasm_opt_main(int(strings.size()), pointers.data());
    } catch (...) {
      error = std::current_exception();
    }
  });
  tool.join();
  if (error) {
    std::rethrow_exception(error);
  }
  return status;
}

namespace {

// Binaryen's assertions, and those of the DWARF reader in it, abort.
void on_abort(int) {
  static const char message[] = "Fatal: Binaryen gave up on this module, for reasons of its own. If it has DWARF debug "
                                "information, strip that first with "
                                "--strip-dwarf. Passes that do not know modern exceptions (-O4, --flatten, --asyncify) "
                                "go in front of --fork-instrument, "
                                "which can translate legacy exceptions to those\n";
  [[maybe_unused]] auto written = write(STDERR_FILENO, message, sizeof(message) - 1);
  _exit(EXIT_FAILURE);
}

} // namespace

void install_terminate_handler() {
  std::signal(SIGABRT, on_abort);
  std::set_terminate([]() {
    if (auto error = std::current_exception()) {
      try {
        std::rethrow_exception(error);
      } catch (const std::exception& e) {
        std::cerr << e.what() << std::endl;
      } catch (...) {
        std::cerr << "Fatal: an unknown error" << std::endl;
      }
    }
    std::_Exit(EXIT_FAILURE);
  });
}

} // namespace fork_instrument
