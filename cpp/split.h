// Moving functions into a second module that imports what they use from the first.
#pragma once

#include "bridge.h"

namespace fork_instrument {

struct Split;

// The second module while it is put together.
class SecondModule {
public:
  explicit SecondModule(Module& first) : first(first) {}

  Module& first;
  std::unique_ptr<Module> module = std::make_unique<Module>();
};

// Whether the function's body uses data or element segments of its module, which no other module can.
bool uses_segments(const Function& func);

// Moves functions, globals that only they use, and their slots of the resume table to a new module; of shared functions
// and globals each module gets its own. All else that they use and that stays is exported from the first module, under
// existing names where there are some, else under the shortest free ones, and imported by the second.
std::unique_ptr<SecondModule> split_module(Module& first, const Split& split);

// Gives the table another name where the two modules meet.
void rename_table_export(SecondModule& second, rust::Str from, rust::Str to);

// The second module's bytes, or its text. Throws when it does not validate.
rust::Vec<uint8_t> write_second(Pass& pass, SecondModule& second, bool text);

} // namespace fork_instrument
