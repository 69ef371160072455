//! Lays out a function's frame: the locals that any of its landings needs, ordered by type so that runs of one type
//! share a push helper.

use crate::plan::{FunctionPlan, LocalIndex, Slot};

/// Fills in [`FunctionPlan::frame`].
pub fn lay_out(plan: &mut FunctionPlan) {
    let mut locals: Vec<LocalIndex> = plan.landings.iter().flat_map(|l| l.live.iter().copied()).collect();
    locals.sort_unstable();
    locals.dedup();
    plan.frame = locals.into_iter().map(|local| Slot { local, type_: plan.local_type(local) }).collect();
    plan.frame.sort_by_key(|slot| (slot.type_, slot.local));
}
