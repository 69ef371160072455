// What every concern of the shim shares: the handles that cross to Rust and the row types' forward declarations.
//
// Rust sees Binaryen's classes as opaque types and expressions as addresses (`size_t`), because rows of a shared
// struct cannot hold raw pointers. Functions that can throw (Binaryen's Fatal() throws in this build) are declared
// `Result` on the Rust side.
#pragma once

#include <unordered_set>

#include "pass.h"
#include "rust/cxx.h"
#include "wasm.h"

namespace fork_instrument {

using wasm::Expression;
using wasm::Function;
using wasm::Module;
using wasm::Pass;

inline Expression* as_expression(size_t address) { return reinterpret_cast<Expression*>(address); }
inline Function* as_function(size_t address) { return reinterpret_cast<Function*>(address); }
inline size_t as_address(const Function* func) { return reinterpret_cast<size_t>(func); }
inline size_t as_address(Expression* expression) { return reinterpret_cast<size_t>(expression); }
// Names are interned: the address of the text stands for it. Zero is no name.
inline size_t as_number(wasm::Name name) { return name.is() ? reinterpret_cast<size_t>(name.str.data()) : 0; }
inline wasm::Name as_name(rust::Str text) { return wasm::Name(std::string_view(text.data(), text.size())); }
inline wasm::Name to_name(const rust::String& text) { return wasm::Name(std::string_view(text.data(), text.size())); }
inline std::unordered_set<wasm::Name> as_names(rust::Slice<const rust::String> names) {
  std::unordered_set<wasm::Name> set;
  for (auto& name : names) {
    set.insert(to_name(name));
  }
  return set;
}
inline std::string as_string(rust::Str text) { return std::string(text.data(), text.size()); }
inline rust::String to_rust(wasm::Name name) { return rust::String::lossy(name.str.data(), name.str.size()); }

} // namespace fork_instrument
