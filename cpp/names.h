// Names that the text format has.
#pragma once

#include "bridge.h"

namespace fork_instrument {

// Gives module items other names whose names are empty or have a zero byte, as a name section can have and a parsed
// text cannot.
void replace_unusable_names(Module& module);

} // namespace fork_instrument
