//! Lays out a function's frame.
//!
//! A frame holds what is live after its own landing, and little besides ([`alike`](crate::analysis::alike)), not what is
//! live after any landing of the function: that is half the bytes in real programs. The slots that every landing needs
//! come last; which of the others a frame holds is a mask of at most 64 bits that the module looks up by function and
//! site. Where frames need not end alike ([`epilogues`](crate::analysis::epilogues)), slots of one type are neighbours, so
//! that they share helpers.

use std::cmp::Reverse;

use crate::frame::{MASK_BITS, slot_size};
use crate::plan::{FunctionPlan, LocalIndex, Slot};

/// Fills in the slots.
pub fn lay_out(plan: &mut FunctionPlan) {
    let mut locals: Vec<LocalIndex> =
        plan.landings.iter().flat_map(|l| l.live.iter().chain(&l.dead).copied()).collect();
    locals.sort_unstable();
    // How many landings need each local.
    let mut uses: Vec<(LocalIndex, usize)> = Vec::new();
    for local in locals {
        match uses.last_mut() {
            Some((last, count)) if *last == local => *count += 1,
            _ => uses.push((local, 1)),
        }
    }
    let landings = plan.landings.len();
    // A bit of the mask stands for one value, so a tuple is always there.
    let is_always =
        |&(local, count): &(LocalIndex, usize)| count == landings || plan.local_type(local).components().len() > 1;
    let (mut always, mut sometimes): (Vec<_>, Vec<_>) = uses.into_iter().partition(is_always);
    // The mask has room for those that are worth most: rarely needed, and large. References first: a frame that holds one
    // that is dead could fail for it.
    let worth = |&(local, count): &(LocalIndex, usize)| {
        (landings - count) as u64 * u64::from(slot_size(plan.local_type(local)))
    };
    sometimes.sort_by_key(|u| (plan.local_type(u.0).is_numeric(), Reverse(worth(u)), u.0));
    always.extend(sometimes.drain(MASK_BITS.min(sometimes.len())..));

    let slots = |uses: Vec<(LocalIndex, usize)>| {
        let mut slots: Vec<Slot> =
            uses.into_iter().map(|(local, _)| Slot { local, type_: plan.local_type(local) }).collect();
        slots.sort_by_key(|slot| (slot.type_.components()[0].in_frame(), slot.local));
        slots
    };
    // Those that most sites need come last, so that frames end alike.
    let mut by_count: Vec<(usize, Slot)> = Vec::new();
    for (local, count) in sometimes {
        by_count.push((count, Slot { local, type_: plan.local_type(local) }));
    }
    by_count.sort_by_key(|(count, slot)| (*count, slot.type_.in_frame(), slot.local));
    let (always, sometimes) = (slots(always), by_count.into_iter().map(|(_, slot)| slot).collect());
    plan.always = always.len();
    plan.frame = sometimes;
    plan.frame.extend(always);
}
