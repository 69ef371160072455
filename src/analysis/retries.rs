//! Decides how a resume function is resumed again whose frame does not fit.
//!
//! A branch back to its start is a loop around the whole function. Engines compute in front of a loop what does not change
//! in it, and keep that through the function: addresses of imports and of memory, types of calls through tables. In
//! wasmtime frames on the stack then are up to four times as large as the function's own. The other way, a call, needs one
//! local that lives through the function, which is dearer where a loop would keep next to nothing.

use std::collections::HashSet;

use crate::analysis::fork_path::{ForkPath, kind};
use crate::analysis::regions::Tree;
use crate::frame::{LAST_GROUP, PUSH_GROUP};
use crate::ir::{Kind, Name};
use crate::plan::{FunctionPlan, RegionKind, Retry, Site};

/// Values that engines keep for a memory, for calls through tables or references, and for calls of another module.
const MEMORY: usize = 1;
const TABLE: usize = 2;
const IMPORT: usize = 2;
/// What a loop may keep, less than this.
const TOO_MANY: usize = 3;

/// Locals of functions whose resume functions have the smallest frames on the engine's stack, at most.
const SMALL_FRAME: usize = 8;

/// `separate`: resume functions come into a module of their own, which imports what they call.
pub fn choose(plan: &mut FunctionPlan, tree: &Tree, path: &ForkPath, separate: bool) {
    let only_resumed = only_resumed(plan);
    let resumed: HashSet<u32> =
        plan.sites().filter(|s| only_resumed[s.0 as usize]).map(|s| tree.landing_row(s).0).collect();
    let (mut memory, mut table) = (0, 0);
    let mut imports: HashSet<Name> = HashSet::new();
    for row in tree.rows_in_order() {
        let node = tree.node(row);
        match node.kind() {
            Kind::Load | Kind::Store => memory = MEMORY,
            _ if !node.is_call() => {}
            _ => match node.expr().describe_call().map(|call| (call.kind, call.target())) {
                Some((kind::CALL, Some(callee))) => {
                    let is_import = path.is_import(callee);
                    let is_called = !resumed.contains(&row.0) || path.is_entry(callee);
                    if is_called && (is_import == Some(true) || separate && is_import.is_some()) {
                        imports.insert(callee);
                    }
                }
                _ => table = TABLE,
            },
        }
    }
    let kept = memory + table + IMPORT * imports.len();
    plan.retry = if kept < TOO_MANY { Retry::Loop } else { Retry::Call };
    let is_small = plan.locals.len() <= SMALL_FRAME || plan.resume_push_group < PUSH_GROUP;
    // The flag is passed, too.
    let in_registers = LAST_GROUP - usize::from(plan.retry == Retry::Call);
    plan.resume_last_group = if is_small { in_registers } else { PUSH_GROUP };
}

/// By site, whether the resume function never calls the callee itself: no way leads to the landing but rewinding.
fn only_resumed(plan: &FunctionPlan) -> Vec<bool> {
    let mut only_resumed = vec![true; plan.landings.len()];
    let mut open: Vec<_> = plan.root.map(|root| (root, false)).into_iter().collect();
    while let Some((id, entered)) = open.pop() {
        let region = plan.region(id);
        let mut entered = entered || region.kind == RegionKind::Loop;
        for &(child, part) in &region.parts {
            open.push((part, entered));
            // The arms of an `if` are not behind each other.
            entered |= region.kind != RegionKind::If || child == 0;
        }
        if let Some(Site(site)) = region.landing {
            only_resumed[site as usize] = !entered;
        }
    }
    only_resumed
}
