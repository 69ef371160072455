// What of a function's locals belongs together: a web is some of a local's sets, and the reads that may find them.
#pragma once

#include "bridge.h"

namespace fork_instrument {

struct LocalRead;
struct Web;
struct WebPair;

// The webs of a function's locals: each can have a local of its own.
class LocalWebs {
public:
  // Direct calls of `others`, functions by number in ascending order, are left out.
  LocalWebs(Module& module, Function& func, rust::Slice<const size_t> others);
  ~LocalWebs();

  // None if a local is used where control cannot come, or if the function is too large.
  rust::Slice<const Web> webs() const;
  // Webs that cannot be in one local, in ascending order.
  rust::Slice<const WebPair> conflicts() const;
  // Calls that are not left out.
  uint32_t landing_count() const;
  // Puts each web into a local of the same type, and removes variables that no web is in. What has a web of another
  // local in it loses its name.
  void assign(rust::Slice<const uint32_t> locals) const;

private:
  struct Found;
  std::unique_ptr<Found> found;
};

std::unique_ptr<LocalWebs> local_webs(Module& module, Function& func, rust::Slice<const size_t> others);

// What each read of a local may find, by Binaryen's own analysis, which knows nothing of webs.
rust::Vec<LocalRead> local_reads(Module& module, Function& func);

} // namespace fork_instrument
