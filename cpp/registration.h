// The pass class that Binaryen runs, and its registration.
#pragma once

#include "bridge.h"

namespace fork_instrument {

// Puts `--fork-instrument` into Binaryen's registry. Call once, before options are parsed.
void register_pass(rust::Str name, rust::Str description);

} // namespace fork_instrument
