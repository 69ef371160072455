#include "webs.h"

#include <algorithm>

#include "cfg/cfg-traversal.h"
#include "fork-instrument/src/ir/ffi.rs.h"
#include "ir/find_all.h"
#include "ir/local-graph.h"
#include "local_bits.h"

namespace fork_instrument {

using namespace wasm;

namespace {

// Bits of what is live at the starts of blocks, at most.
constexpr size_t MOST_BITS = size_t(1) << 28;
// Locals that are live at the start of a block, counted over all blocks, at most.
constexpr size_t MOST_LIVE = size_t(1) << 22;
// Pairs of webs that conflict, at most.
constexpr size_t MOST_CONFLICTS = size_t(1) << 22;

// What happens in a basic block, in order, and the nodes of webs in it.
struct Contents {
  std::vector<Expression*> actions;
  LocalBits at_start;
  // By local that is live at the start, in ascending order.
  std::vector<std::pair<Index, uint32_t>> nodes_at_start;
  // By action, the node of a get or set.
  std::vector<uint32_t> nodes;
};

struct Flow : public CFGWalker<Flow, UnifiedExpressionVisitor<Flow>, Contents> {
  bool ignoreBranchesOutsideOfFunc = true;
  rust::Slice<const size_t> others;
  bool has_unreachable = false;
  // Disjoint sets.
  std::vector<uint32_t> parents;

  void visitExpression(Expression* curr) {
    bool is_use = curr->is<LocalGet>() || curr->is<LocalSet>();
    if (is_use || is_landing(curr)) {
      if (currBasicBlock) {
        currBasicBlock->contents.actions.push_back(curr);
      } else {
        has_unreachable |= is_use;
      }
    }
  }
  bool is_landing(Expression* curr) const {
    if (auto* call = curr->dynCast<Call>()) {
      return !std::binary_search(others.begin(), others.end(), as_number(call->target));
    }
    return curr->is<CallIndirect>() || curr->is<CallRef>();
  }

  // Whether nothing that reads or sets a local is in code that cannot be reached.
  bool leave_out_dead_blocks() {
    auto live = findLiveBlocks();
    for (auto& block : basicBlocks) {
      if (!live.count(block.get())) {
        has_unreachable |= !block->contents.actions.empty();
      }
    }
    unlinkDeadBlocks(live);
    std::erase_if(basicBlocks, [&](auto& block) { return !live.count(block.get()); });
    return !has_unreachable;
  }

  uint32_t new_node() {
    parents.push_back(parents.size());
    return parents.back();
  }
  uint32_t find(uint32_t node) {
    while (parents[node] != node) {
      node = parents[node] = parents[parents[node]];
    }
    return node;
  }
  void join(uint32_t a, uint32_t b) {
    a = find(a), b = find(b);
    parents[std::max(a, b)] = std::min(a, b);
  }

  void find_live(size_t locals) {
    for (auto& block : basicBlocks) {
      block->contents.at_start = LocalBits(locals);
    }
    LocalBits live(locals);
    for (bool changes = true; changes;) {
      changes = false;
      for (auto block = basicBlocks.rbegin(); block != basicBlocks.rend(); ++block) {
        live.clear();
        for (auto* next : (*block)->out) {
          live.add(next->contents.at_start);
        }
        auto& contents = (*block)->contents;
        for (auto action = contents.actions.rbegin(); action != contents.actions.rend(); ++action) {
          if (auto* get = (*action)->dynCast<LocalGet>()) {
            live.add(get->index);
          } else if (auto* set = (*action)->dynCast<LocalSet>()) {
            live.remove(set->index);
          }
        }
        if (!(live == contents.at_start)) {
          contents.at_start = live;
          changes = true;
        }
      }
    }
  }

  // False if there is too much of them.
  bool find_webs(size_t locals) {
    size_t all_live = 0;
    for (auto& block : basicBlocks) {
      all_live += block->contents.at_start.size();
    }
    if (all_live > MOST_LIVE) {
      return false;
    }
    for (auto& block : basicBlocks) {
      auto& contents = block->contents;
      contents.at_start.each([&](size_t local) { contents.nodes_at_start.emplace_back(local, new_node()); });
    }
    std::vector<uint32_t> current(locals);
    for (auto& block : basicBlocks) {
      auto& contents = block->contents;
      for (auto [local, node] : contents.nodes_at_start) {
        current[local] = node;
      }
      for (auto* action : contents.actions) {
        uint32_t node = 0;
        if (auto* get = action->dynCast<LocalGet>()) {
          node = current[get->index];
        } else if (auto* set = action->dynCast<LocalSet>()) {
          node = current[set->index] = new_node();
        }
        contents.nodes.push_back(node);
      }
      for (auto* next : block->out) {
        for (auto [local, node] : next->contents.nodes_at_start) {
          join(node, current[local]);
        }
      }
    }
    return true;
  }
};

// A set of webs that remembers its members.
struct LiveWebs {
  std::vector<uint32_t> members;
  // By web, where it is among the members, and one more; 0 if it is not.
  std::vector<uint32_t> places;

  void add(uint32_t web) {
    if (places.size() <= web) {
      places.resize(web + 1);
    }
    if (!places[web]) {
      members.push_back(web);
      places[web] = members.size();
    }
  }
  void remove(uint32_t web) {
    if (web < places.size() && places[web]) {
      auto last = members.back();
      members[places[web] - 1] = last;
      places[last] = places[web];
      places[web] = 0;
      members.pop_back();
    }
  }
  void clear() {
    while (!members.empty()) {
      remove(members.back());
    }
  }
};

// Pairs of webs, each once.
struct Conflicts {
  std::vector<WebPair> pairs;
  // How many there may be before those that occur again are looked for.
  size_t most = 1 << 16;
  bool are_too_many = false;

  void add(uint32_t web, const std::vector<uint32_t>& others) {
    if (are_too_many) {
      return;
    }
    for (auto other : others) {
      if (web != other) {
        pairs.push_back({std::min(web, other), std::max(web, other)});
      }
    }
    if (pairs.size() > most) {
      tidy();
      most = std::max(most, 2 * pairs.size());
      are_too_many = pairs.size() > MOST_CONFLICTS;
    }
  }
  void tidy() {
    auto key = [](const WebPair& pair) { return std::pair(pair.first, pair.second); };
    std::sort(pairs.begin(), pairs.end(), [&](auto& a, auto& b) { return key(a) < key(b); });
    auto end = std::unique(pairs.begin(), pairs.end(), [&](auto& a, auto& b) { return key(a) == key(b); });
    pairs.erase(end, pairs.end());
  }
};

} // namespace

struct LocalWebs::Found {
  Function& func;
  Flow flow;
  std::vector<Web> webs;
  Conflicts conflicts;
  uint32_t landings = 0;
  // Gets and sets, and their webs.
  std::vector<std::pair<Expression*, uint32_t>> uses;
  // Webs, by the first of their nodes, and one more.
  std::vector<uint32_t> numbers;
  LiveWebs live;

  explicit Found(Function& func) : func(func) {}

  uint32_t web_of(uint32_t node, Index local) {
    auto& number = numbers[flow.find(node)];
    if (!number) {
      webs.push_back(Web{local, false, 0, 0});
      number = webs.size();
    }
    return number - 1;
  }

  // What is live at the start of a block is live there in these webs.
  void add_live_at_start(const Contents& contents) {
    for (auto [local, node] : contents.nodes_at_start) {
      live.add(web_of(node, local));
    }
  }

  // Goes through a block, from its end.
  void go_back(const Flow::BasicBlock& block) {
    live.clear();
    for (auto* next : block.out) {
      add_live_at_start(next->contents);
    }
    auto& contents = block.contents;
    for (size_t i = contents.actions.size(); i-- > 0;) {
      auto* action = contents.actions[i];
      if (auto* get = action->dynCast<LocalGet>()) {
        auto web = web_of(contents.nodes[i], get->index);
        note_use(get, web);
        live.add(web);
      } else if (auto* set = action->dynCast<LocalSet>()) {
        auto web = web_of(contents.nodes[i], set->index);
        note_use(set, web);
        live.remove(web);
        conflicts.add(web, live.members);
      } else {
        landings++;
        for (auto web : live.members) {
          webs[web].landings++;
        }
      }
    }
  }

  void note_use(Expression* use, uint32_t web) {
    uses.emplace_back(use, web);
    webs[web].uses++;
  }

  // All that is live at the entry is there at once.
  void note_entry() {
    live.clear();
    add_live_at_start(flow.entry->contents);
    for (auto a : live.members) {
      webs[a].from_entry = true;
      conflicts.add(a, live.members);
    }
  }

  void find() {
    auto locals = func.getNumLocals();
    if (!flow.leave_out_dead_blocks() || locals * flow.basicBlocks.size() > MOST_BITS) {
      return;
    }
    flow.find_live(locals);
    if (!flow.find_webs(locals)) {
      return;
    }
    numbers.resize(flow.parents.size());
    for (auto& block : flow.basicBlocks) {
      go_back(*block);
    }
    note_entry();
    conflicts.tidy();
    if (conflicts.are_too_many) {
      webs.clear();
    }
  }
};

LocalWebs::LocalWebs(Module& module, Function& func, rust::Slice<const size_t> others)
    : found(std::make_unique<Found>(func)) {
  found->flow.others = others;
  found->flow.walkFunctionInModule(&func, &module);
  found->find();
}

LocalWebs::~LocalWebs() = default;

rust::Slice<const Web> LocalWebs::webs() const { return {found->webs.data(), found->webs.size()}; }

rust::Slice<const WebPair> LocalWebs::conflicts() const {
  auto& pairs = found->conflicts.pairs;
  return {pairs.data(), pairs.size()};
}

uint32_t LocalWebs::landing_count() const { return found->landings; }

void LocalWebs::assign(rust::Slice<const uint32_t> locals) const {
  auto& func = found->func;
  auto params = func.getNumParams();
  // By local, the one whose values all are that it has now; or none, or several.
  constexpr Index none = -1, several = -2;
  std::vector<Index> owners(func.getNumLocals(), none);
  for (uint32_t web = 0; web < locals.size(); web++) {
    auto& owner = owners[locals[web]];
    auto own = found->webs[web].local;
    owner = owner == none || owner == own ? own : several;
  }
  std::vector<Index> numbers(func.getNumLocals());
  std::vector<Type> vars;
  std::unordered_map<Index, Name> names;
  std::unordered_map<Name, Index> indices;
  for (Index local = 0; local < numbers.size(); local++) {
    auto is_param = local < params;
    auto number = numbers[local] = is_param ? local : params + vars.size();
    if (!is_param && owners[local] == none) {
      continue;
    }
    if (!is_param) {
      vars.push_back(func.getLocalType(local));
    }
    if (func.hasLocalName(local) && (is_param || owners[local] == local)) {
      auto name = func.getLocalName(local);
      names[number] = name;
      indices[name] = number;
    }
  }
  for (auto& [use, web] : found->uses) {
    auto& index = use->is<LocalGet>() ? use->cast<LocalGet>()->index : use->cast<LocalSet>()->index;
    index = numbers[locals[web]];
  }
  func.vars = std::move(vars);
  func.localNames = std::move(names);
  func.localIndices = std::move(indices);
}

std::unique_ptr<LocalWebs> local_webs(Module& module, Function& func, rust::Slice<const size_t> others) {
  return std::make_unique<LocalWebs>(module, func, others);
}

rust::Vec<LocalRead> local_reads(Module& module, Function& func) {
  LocalGraph graph(&func, &module);
  rust::Vec<LocalRead> out;
  for (auto* get : FindAll<LocalGet>(func.body).list) {
    // Of what was there at the start, which parameter it is, or that it is zero.
    bool finds_start = false;
    std::vector<size_t> sets;
    for (auto* set : graph.getSets(get)) {
      finds_start |= !set;
      sets.push_back(set ? as_address(set) : 0);
    }
    std::sort(sets.begin(), sets.end());
    auto start = finds_start ? std::min<size_t>(get->index, func.getNumParams()) : size_t(-1);
    auto hash = wasm::hash(start);
    for (auto set : sets) {
      wasm::rehash(hash, set);
    }
    out.push_back(LocalRead{as_address(get), hash});
  }
  return out;
}

} // namespace fork_instrument
