#include "registration.h"

#include "fork-instrument/src/ir/ffi.rs.h"

namespace fork_instrument {

using namespace wasm;

namespace {

// All decisions and rewriting are in Rust (`run_pass`); this is what Binaryen sees of it.
struct ForkInstrument : public Pass {
  void run(Module* module) override {
    auto argument = passArg ? *passArg : std::string();
    auto error = run_pass(*this, *module, argument);
    if (!error.empty()) {
      Fatal() << std::string(error.data(), error.size());
    }
  }

  // Call frames of instrumented functions do not match the DWARF of the input.
  bool invalidatesDWARF() override { return true; }
  // Functions that were free of effects now write the state and the buffer.
  bool addsEffects() override { return true; }
};

} // namespace

void register_pass(rust::Str name, rust::Str description) {
  PassRegistry::get()->registerPass(as_string(name).c_str(), as_string(description).c_str(),
                                    []() { return new ForkInstrument(); });
}

} // namespace fork_instrument
