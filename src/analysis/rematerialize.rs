//! Decides how each operand that was computed before a landing is available after it.
//!
//! ```text
//! (i32.store (i32.add (local.get $p) (i32.const 8))     ;; computed before the landing, needed after it
//!            (call $may_fork))                          ;; the landing
//! ```
//!
//! In the function itself the address stays where it is, on the operand stack. The resume function must produce it
//! again. In order of preference: compute it again from locals that the frame holds anyway ([`Carry::Recompute`]), read
//! the local that already holds it ([`Carry::ReadLocal`]), compute it again from locals that are kept for that, keep it in
//! a new local ([`Carry::Spill`]).
//!
//! The operand's locals are read before the landing in order of evaluation, so liveness after the landing does not see
//! these reads: they are added to what the frame holds.

use std::collections::HashMap;

use crate::analysis::listing::Row;
use crate::analysis::regions::Tree;
use crate::ir::{Effects, Kind, Module, Type};
use crate::options::Replay;
use crate::plan::{Callee, CarriedOperand, Carry, FunctionPlan, LocalIndex, RegionId, RegionKind, SpillReason};

/// Fills in the carried operands of all regions, the locals to add, and the locals that frames hold for their sake.
pub fn carry_operands(plan: &mut FunctionPlan, tree: &Tree, module: Module<'_>, replay: Replay) {
    let Some(root) = plan.root else { return };
    let values = if replay == Replay::Effects { values_of_locals(tree) } else { HashMap::new() };
    let mut decider = Decider { plan, tree, module, replay, values, pending: Vec::new(), free: Vec::new() };
    decider.visit(root);
}

/// Rows of the larger expressions that are not looked for among the values of locals.
const MAX_VALUE_ROWS: u32 = 32;

/// The sets of locals to values that are worth looking for, by the value's hash.
fn values_of_locals(tree: &Tree) -> HashMap<u64, Vec<Row>> {
    let mut values: HashMap<u64, Vec<Row>> = HashMap::new();
    for set in tree.rows_in_order().filter(|&row| tree.node(row).kind() == Kind::LocalSet) {
        let value = Row(set.0 - 1);
        if is_worth_looking_for(tree, value) {
            values.entry(tree.node(value).expr().hash()).or_default().push(set);
        }
    }
    values
}

fn is_worth_looking_for(tree: &Tree, value: Row) -> bool {
    let node = tree.node(value);
    let is_leaf = node.first == value.0;
    !is_leaf && value.0 - node.first < MAX_VALUE_ROWS && !node.kind().is_control_flow()
}

struct Decider<'a, 'm> {
    plan: &'a mut FunctionPlan,
    tree: &'a Tree,
    module: Module<'m>,
    replay: Replay,
    /// Sets of locals, by the hash of the value.
    values: HashMap<u64, Vec<Row>>,
    /// Locals that operands of the regions around the current one will read.
    pending: Vec<LocalIndex>,
    /// Spill locals that no region around the current one uses.
    free: Vec<LocalIndex>,
}

/// How an operand is to be available, before a local is found for it if it is spilled.
struct Decision {
    operand: Row,
    /// Sites whose frames will hold what it reads.
    later: std::ops::Range<u32>,
    carry: Result<Carry, SpillReason>,
}

impl Decider<'_, '_> {
    fn visit(&mut self, id: RegionId) {
        stacker::maybe_grow(64 * 1024, 4 * 1024 * 1024, || self.visit_region(id));
    }

    fn visit_region(&mut self, id: RegionId) {
        let region = self.plan.region(id).clone();
        let outer = self.pending.len();
        if region.kind == RegionKind::Operands {
            self.decide_operands(id);
        }
        for &(child, part) in &region.parts {
            self.pending.truncate(outer);
            let earlier = self.reads_of_carried(id, |c| c.child < child);
            self.pending.extend(earlier);
            self.visit(part);
        }
        if let Some(site) = region.landing {
            self.pending.truncate(outer);
            if self.plan.landing(site).callee == Callee::Entry {
                let arguments = self.reads_of_carried(id, |_| true);
                self.pending.extend(arguments);
            }
            let landing = &mut self.plan.landings[site.0 as usize];
            landing.live.extend(&self.pending);
            landing.live.sort_unstable();
            landing.live.dedup();
        }
        self.pending.truncate(outer);
        for carried in &self.plan.region(id).carried {
            // A local for references belongs to one operand, so that it can be made again.
            if let Carry::Spill(local, _) = carried.carry
                && self.plan.local_type(local).is_numeric()
            {
                self.free.push(local);
            }
        }
    }

    /// Locals that the carried operands of a region need in the frame.
    fn reads_of_carried(&self, id: RegionId, wanted: impl Fn(&CarriedOperand) -> bool) -> Vec<LocalIndex> {
        let mut reads = Vec::new();
        if self.plan.region(id).carried.is_empty() {
            return reads;
        }
        let children = self.tree.children(self.tree.row_of(id));
        for carried in self.plan.region(id).carried.iter().filter(|c| wanted(c)) {
            match carried.carry {
                Carry::Recompute => {
                    let operand = self.tree.node(children[carried.child as usize]).expr();
                    reads.extend(self.module.effects(operand).reads);
                }
                Carry::ReadLocal(local) | Carry::Spill(local, _) => reads.push(local),
            }
        }
        reads
    }

    fn decide_operands(&mut self, id: RegionId) {
        let region = self.plan.region(id).clone();
        let row = self.tree.row_of(id);
        let children = self.tree.children(row);
        let is_entry = region.landing.is_some_and(|site| self.plan.landing(site).callee == Callee::Entry);
        let needed =
            if is_entry { children.len() } else { region.parts.last().map_or(0, |&(child, _)| child as usize) };
        // Past this row nothing can execute before the last landing that needs the operand.
        let until = if is_entry { row } else { self.last_row_before_landing(&region.parts) };
        let decision = |(&operand, child): (&Row, u32)| {
            let later = self.later_sites(&region, child, is_entry);
            Decision { operand, carry: self.decide(operand, until, later.clone()), later }
        };
        let mut decisions: Vec<Decision> = children[..needed].iter().zip(0..).map(decision).collect();
        self.share_inputs(&mut decisions);
        for (Decision { operand, carry, .. }, child) in decisions.into_iter().zip(0..) {
            let spill = |reason| Carry::Spill(self.spill_local(self.tree.node(operand).type_()), reason);
            let carry = carry.unwrap_or_else(spill);
            self.plan.regions[id.0 as usize].carried.push(CarriedOperand { child, carry, test: None });
        }
    }

    /// Recomputes operands that are too dear one by one, if together they keep no more locals, and no larger ones, than
    /// there are values.
    fn share_inputs(&self, decisions: &mut [Decision]) {
        let is_dear =
            |d: &Decision| d.carry == Err(SpillReason::Cost) && self.tree.node(d.operand).type_().is_numeric();
        let Some(later) = decisions.iter().find(|d| is_dear(d)).map(|d| d.later.clone()) else { return };
        let dear: Vec<&mut Decision> = decisions.iter_mut().filter(|d| is_dear(d) && d.later == later).collect();
        let mut kept: Vec<LocalIndex> = dear
            .iter()
            .flat_map(|d| self.module.effects(self.tree.node(d.operand).expr()).reads)
            .filter(|&local| !later.clone().all(|site| self.is_held(local, site)))
            .collect();
        kept.sort_unstable();
        kept.dedup();
        let values: u32 = dear.iter().map(|d| self.tree.node(d.operand).type_().size()).sum();
        let locals: u32 = kept.iter().map(|&local| self.plan.local_type(local).size()).sum();
        let are_numbers = kept.iter().all(|&local| self.plan.local_type(local).is_numeric());
        if are_numbers && kept.len() <= dear.len() && locals <= values {
            dear.into_iter().for_each(|d| d.carry = Ok(Carry::Recompute));
        }
    }

    /// Whether frames of a site hold a local anyway.
    fn is_held(&self, local: LocalIndex, site: u32) -> bool {
        self.plan.landings[site as usize].live.binary_search(&local).is_ok() || self.pending.contains(&local)
    }

    /// Sites whose frames will hold what the operand reads.
    fn later_sites(&self, region: &crate::plan::Region, child: u32, is_entry: bool) -> std::ops::Range<u32> {
        let first_later = region.parts.iter().find(|&&(c, _)| c > child);
        let start = first_later.map_or(region.sites.end - 1, |&(_, part)| self.plan.region(part).sites.start);
        let end = if is_entry || region.landing.is_none() { region.sites.end } else { region.sites.end - 1 };
        start..end
    }

    /// The last row that can execute before a landing of the last part: the landing, or the end of the outermost loop
    /// around it.
    fn last_row_before_landing(&self, parts: &[(u32, RegionId)]) -> Row {
        let Some(&(_, mut part)) = parts.last() else { return Row(0) };
        loop {
            let region = self.plan.region(part);
            if region.kind == RegionKind::Loop || region.landing.is_some() {
                return self.tree.row_of(part);
            }
            part = region.parts.last().expect("a region without a landing of its own has parts").1;
        }
    }

    fn decide(&self, operand: Row, until: Row, later: std::ops::Range<u32>) -> Result<Carry, SpillReason> {
        if self.tree.region(operand).is_some() {
            return Err(SpillReason::Calls);
        }
        let node = self.tree.node(operand);
        let effects = self.module.effects(node.expr());
        match self.why_not_recomputed(operand, &effects) {
            None => {
                let is_written = |&local: &LocalIndex| self.tree.is_written_between(local, operand, until);
                let problem = match effects.reads.iter().any(is_written) {
                    true => Some(SpillReason::ReadsWrittenLocal),
                    false if !self.is_worth_recomputing(&effects, node.type_(), later.clone()) => {
                        Some(SpillReason::Cost)
                    }
                    false => None,
                };
                let is_free =
                    problem.is_none() && effects.reads.iter().all(|&l| later.clone().all(|s| self.is_held(l, s)));
                let holder = if is_free { None } else { self.local_with_value_of(operand, &effects, until) };
                match (holder, problem) {
                    (Some(local), Some(_)) => Ok(Carry::ReadLocal(local)),
                    (Some(local), None) if later.clone().all(|s| self.is_held(local, s)) => Ok(Carry::ReadLocal(local)),
                    (_, None) => Ok(Carry::Recompute),
                    (None, Some(reason)) => Err(reason),
                }
            }
            Some(reason) => {
                let is_tee = node.kind() == Kind::LocalSet && self.replay != Replay::None;
                if is_tee && !self.tree.is_written_between(node.local, operand, until) {
                    return Ok(Carry::ReadLocal(node.local));
                }
                Err(reason)
            }
        }
    }

    /// A local that an equal value was set to, and that holds it up to the last landing.
    fn local_with_value_of(&self, operand: Row, effects: &Effects, until: Row) -> Option<LocalIndex> {
        if self.values.is_empty() || !is_worth_looking_for(self.tree, operand) {
            return None;
        }
        let value = self.tree.node(operand).expr();
        let sets = self.values.get(&value.hash())?.iter().rev();
        let holds = |&&set: &&Row| {
            let node = self.tree.node(set);
            let set_value = Row(set.0 - 1);
            // What a loop between the two writes in one round is written before the next.
            let again = self.tree.outermost_loop_behind(set, operand).unwrap_or(operand);
            set.0 < self.tree.node(operand).first
                && self.plan.local_type(node.local) == value.type_()
                && self.tree.is_before(set, operand)
                && self.tree.node(set_value).expr().same_as(value)
                && !effects.reads.iter().any(|&l| self.tree.is_written_between(l, set_value, again.max(operand)))
                && !self.tree.is_written_between(node.local, set, again.max(until))
        };
        sets.clone().find(holds).map(|&set| self.tree.node(set).local)
    }

    fn why_not_recomputed(&self, operand: Row, effects: &Effects) -> Option<SpillReason> {
        if effects.calls {
            Some(SpillReason::Calls)
        } else if effects.side_effects || !effects.writes.is_empty() {
            Some(SpillReason::SideEffects)
        } else if effects.traps {
            Some(SpillReason::Traps)
        } else if effects.reads_mutable_state {
            Some(SpillReason::ReadsMutableState)
        } else if effects.generative {
            Some(SpillReason::Generative)
        } else {
            let allowed = match self.replay {
                Replay::None => false,
                Replay::Scalar => self.is_scalar(operand),
                Replay::Effects => true,
            };
            (!allowed).then_some(SpillReason::Option)
        }
    }

    /// Scalar constants and reads of locals, and integer operations on them. Which of these cannot trap was asked of
    /// the effects.
    fn is_scalar(&self, operand: Row) -> bool {
        let is_integer = |t: Type| t == Type::I32 || t == Type::I64;
        let rows = self.tree.node(operand).first..=operand.0;
        rows.map(Row).all(|row| {
            let node = self.tree.node(row);
            match node.kind() {
                Kind::Const | Kind::LocalGet => node.type_().is_numeric() && node.type_() != Type::V128,
                Kind::Unary | Kind::Binary => {
                    is_integer(node.type_())
                        && self.tree.children(row).iter().all(|&c| is_integer(self.tree.node(c).type_()))
                }
                _ => false,
            }
        })
    }

    /// Recomputing is worth it if it keeps at most one local more in the frame than is there anyway, and one that is
    /// no larger than the value. A number is easier to keep than a reference.
    fn is_worth_recomputing(&self, effects: &Effects, type_: Type, later: std::ops::Range<u32>) -> bool {
        later.clone().all(|site| {
            let live = &self.plan.landings[site as usize].live;
            let extra: Vec<_> =
                effects.reads.iter().filter(|l| live.binary_search(l).is_err() && !self.pending.contains(l)).collect();
            if type_.has_reference() {
                return extra.iter().all(|&&l| self.plan.local_type(l).is_numeric() || extra.len() == 1);
            }
            let bytes: u32 = extra.iter().map(|&&l| self.plan.local_type(l).size()).sum();
            extra.iter().all(|&&l| self.plan.local_type(l).is_numeric())
                && extra.len() <= 1
                && bytes <= type_.size().max(1)
        })
    }

    fn spill_local(&mut self, type_: Type) -> LocalIndex {
        let type_ = self.module.local_type(type_);
        if let Some(position) = self.free.iter().position(|&l| self.plan.local_type(l) == type_) {
            return self.free.swap_remove(position);
        }
        self.plan.add_spill(type_)
    }
}
