// Names that the text format has.
#pragma once

#include "bridge.h"

namespace fork_instrument {

// Gives module items with a zero byte in their names, which a name section can have and a parsed text cannot, others.
void remove_zeros_from_names(Module& module);

} // namespace fork_instrument
