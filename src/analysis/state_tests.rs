//! Decides where the state is tested after each landing.
//!
//! The test leaves for the function's epilogue when the callee returned because it is being unwound. It can come later
//! than right after the call, as long as nothing is executed in between that could be noticed: the callee's result (a
//! default value) may pass through operations without effects, and be set to a local that the frame does not hold.
//! Later is cheaper, because a test between statements or operands can name its landing in the branch, while a test in
//! place must carry the callee's value and needs a label of its own.
//!
//! ```text
//! (local.set $x (i32.eqz (call $g)))  ;; then the test
//! (i32.add (call $g) TEST (local.get $y))
//! (if (local.tee $x (call $g)) …)     ;; becomes: set $x, test, (if (local.get $x) …)
//! (br_if $l (call $g))                ;; the callee returns zero: the test comes behind the br_if
//! (if (call $g) (then …))             ;; likewise: (else TEST)
//! (br_if $l (i32.eqz (call $g)))      ;; or (if (i32.eqz (call $g)) (then TEST (br $l)))
//! (br_if $l (i32.lt_s (call $g) (i32.const 0)))  ;; likewise: behind it
//! (if (i32.lt_s (local.get $x) (call $g)) …)     ;; in place: … (br_if $landing (call $g) (global.get $state)) …
//! ```

use std::collections::HashMap;

use crate::analysis::listing::Row;
use crate::analysis::regions::Tree;
use crate::ir::{Kind, Module, Type};
use crate::plan::{Callee, Carry, FunctionPlan, InPlace, LocalIndex, RegionId, Site, Way};

/// Labels for tests in place in one function, at most: each makes all tests branch one level further, and from 128
/// levels on a branch takes a byte more.
const MAX_CARRIED: usize = 100;

/// Fills in the tests of all landings. `returns_zero`: all that can be suspended returns zero when it is unwound.
pub fn place_tests(plan: &mut FunctionPlan, tree: &Tree, module: Module<'_>, returns_zero: bool) {
    let mut carried = 0;
    // Locals that keep values during tests in place, by type.
    let mut kept: HashMap<Type, LocalIndex> = HashMap::new();
    for site in (0..plan.landings.len() as u32).map(Site) {
        match find_place(plan, tree, module, site, returns_zero) {
            Place::Before(region, child) => plan.regions[region.0 as usize].test_before = Some((child, site)),
            Place::After(region) => plan.regions[region.0 as usize].test_after = Some(site),
            Place::Behind(region, way) => plan.regions[region.0 as usize].test_behind = Some((way, site)),
            Place::InTee(region) => plan.regions[region.0 as usize].test_in_tee = Some(site),
            Place::InSpill(region, child) => {
                let carried = plan.regions[region.0 as usize].carried.iter_mut().find(|c| c.child == child);
                carried.expect("the operand is carried").test = Some(site);
            }
            Place::Here if carried < MAX_CARRIED => {
                carried += 1;
                plan.landings[site.0 as usize].test_in_place = Some(InPlace::Carried);
            }
            Place::Here => {
                let type_ = plan.landing(site).result;
                let local = *kept.entry(type_).or_insert_with(|| plan.add_spill(type_));
                plan.landings[site.0 as usize].test_in_place = Some(InPlace::Kept(local));
            }
        }
    }
}

enum Place {
    Before(RegionId, u32),
    After(RegionId),
    Behind(RegionId, Way),
    InTee(RegionId),
    InSpill(RegionId, u32),
    Here,
}

fn find_place(plan: &FunctionPlan, tree: &Tree, module: Module<'_>, site: Site, returns_zero: bool) -> Place {
    let landing = plan.landing(site);
    let live = &landing.live;
    // What the value is while the function unwinds, where that is known.
    let mut value = (returns_zero && landing.callee != Callee::Entry && landing.result.is_numeric()).then_some(0);
    let mut current = tree.landing_row(site);
    // Where the test goes if none of what is further out works.
    let mut fallback = None;
    loop {
        let region = tree.region(current).expect("a landing and what is around it are regions");
        let node = tree.node(current);
        if node.type_() == Type::NONE {
            return Place::After(region);
        }
        let Some(parent) = tree.parent(current) else { return fallback.unwrap_or(Place::Here) };
        let parent_node = tree.node(parent);
        let parent_region = tree.region(parent).expect("what is around a landing is a region");
        let is_last = tree.next_sibling(current).is_none();
        if parent_node.kind().is_control_flow() || parent_node.kind() == Kind::Break && is_last {
            return match find_way(tree, parent, current, value) {
                None => fallback.unwrap_or(Place::Here),
                Some(None) => Place::After(parent_region),
                Some(Some(way)) => Place::Behind(parent_region, way),
            };
        }
        let plan_region = plan.region(parent_region);
        if let Some(carried) = plan_region.carried(node.child) {
            debug_assert!(matches!(carried.carry, Carry::Spill(..)), "an operand with a landing is spilled");
            let in_spill = Place::InSpill(parent_region, node.child);
            return fallback.filter(|place| matches!(place, Place::Before(..))).unwrap_or(in_spill);
        }
        debug_assert!(
            plan_region.landing.is_none_or(|s| plan.landing(s).callee != Callee::Entry),
            "all operands of an entry are carried"
        );
        if parent_node.kind() == Kind::LocalSet {
            if live.binary_search(&parent_node.local).is_ok() {
                return fallback.unwrap_or(Place::Here);
            }
            if parent_node.type_() != Type::NONE && fallback.is_none() {
                fallback = Some(Place::InTee(parent_region));
            }
        } else {
            let folded = value.filter(|_| node.child == 0).and_then(|v| parent_node.expr().fold(&[v]));
            if !is_last {
                let before = Place::Before(parent_region, node.child + 1);
                if folded.is_none() {
                    return before;
                }
                fallback = Some(before);
            }
            if !is_harmless(tree, module, parent) {
                return fallback.unwrap_or(Place::Here);
            }
            value = folded;
        }
        current = parent;
    }
}

/// The way that a node takes on a condition with a value; `Some(None)` for the way to what follows it.
fn find_way(tree: &Tree, row: Row, condition: Row, value: Option<u64>) -> Option<Option<Way>> {
    let node = tree.node(row);
    let holds = value? as u32 != 0;
    match node.kind() {
        // One that carries no value along.
        Kind::Break if node.type_() == Type::NONE => Some(holds.then_some(Way::Taken)),
        Kind::If if tree.node(condition).child == 0 => {
            let arms = &tree.children(row)[1..];
            let goes_on = arms.len() == 1 && tree.node(arms[0]).type_() == Type::UNREACHABLE;
            match holds {
                true => Some(Some(Way::Arm(1))),
                false if goes_on => Some(None),
                false => Some(Some(if arms.len() == 1 { Way::NewElse } else { Way::Arm(2) })),
            }
        }
        _ => None,
    }
}

/// Whether executing the expression itself on a meaningless operand can be noticed by nobody.
fn is_harmless(tree: &Tree, module: Module<'_>, row: Row) -> bool {
    let node = tree.node(row);
    if node.is_call() || node.type_() == Type::UNREACHABLE {
        return false;
    }
    let effects = module.shallow_effects(node.expr());
    !(effects.calls || effects.traps || effects.side_effects || effects.generative)
}
