// Binaryen's own wasm-opt as a function, and reading and writing of modules for library users.
#pragma once

#include "bridge.h"

namespace fork_instrument {

// Runs Binaryen's wasm-opt with arguments of which each ends in a zero byte. Does not return when it succeeds (the tool
// ends the process); throws on a fatal error.
int32_t run_wasm_opt(rust::Slice<const uint8_t> arguments);

// Makes fatal errors in worker threads end the process with a message and status 1.
void install_terminate_handler();

} // namespace fork_instrument
