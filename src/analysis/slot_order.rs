//! Decides in which order the slots that only some frames hold are pushed.
//!
//! Epilogues go on in each other where their frames end alike ([`epilogues`](crate::analysis::epilogues)). Taken from
//! the last slot to the first, frames are paths in a tree, and each node of the tree is a local that code pushes. Which
//! slots come last decides how many nodes there are: the search starts with the slots in the order in which they were
//! laid out, and moves single slots for as long as that makes the tree smaller.

use crate::plan::FunctionPlan;

/// Masks that are looked at in one function, at most: the time that it may take.
const MAX_LOOKS: usize = 2_000_000;

/// Reorders the slots. The frame must be laid out.
pub fn improve(plan: &mut FunctionPlan) {
    let count = plan.sometimes().len();
    let mut masks: Vec<u64> = plan.sites().map(|site| plan.mask(site)).collect();
    masks.sort_unstable();
    masks.dedup();
    if count < 2 || masks.len() < 2 {
        return;
    }
    let mut order = plan.sometimes().to_vec();
    let mut moved = Vec::with_capacity(masks.len());
    let mut best = count_nodes(&masks);
    let mut looks = MAX_LOOKS / masks.len();
    loop {
        let before = best;
        for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))).filter(|(f, t)| f != t) {
            let Some(left) = looks.checked_sub(1) else { break };
            looks = left;
            moved.clear();
            moved.extend(masks.iter().map(|&mask| move_bit(mask, from, to)));
            moved.sort_unstable();
            let nodes = count_nodes(&moved);
            if nodes < best {
                best = nodes;
                std::mem::swap(&mut masks, &mut moved);
                let slot = order.remove(from);
                order.insert(to, slot);
            }
        }
        if best == before || looks == 0 {
            break;
        }
    }
    plan.frame[..count].copy_from_slice(&order);
}

/// Nodes of the tree of masks, read from their highest bits on: bits of the first, and of each other one those from the
/// highest on in which it differs from the one before. The masks must be in ascending order.
pub fn count_nodes(masks: &[u64]) -> u32 {
    let mut previous = 0;
    let mut nodes = 0;
    for &mask in masks {
        if let Some(highest) = (mask ^ previous).checked_ilog2() {
            nodes += (mask & (u64::MAX >> (63 - highest))).count_ones();
        }
        previous = mask;
    }
    nodes
}

/// Nodes of the tree in which masks end or part, its root left out. The masks must be in ascending order, each once.
pub fn count_ends(masks: &[u64]) -> u32 {
    // Those on the way to the last mask.
    let mut way: Vec<u64> = Vec::new();
    let mut ends = 0;
    let mut previous = 0;
    for &mask in masks {
        let common = (mask ^ previous).checked_ilog2().map_or(mask, |highest| mask & !1 << highest);
        while way.pop_if(|end| *end > common).is_some() {}
        for end in [common, mask] {
            if end != 0 && way.last() != Some(&end) {
                way.push(end);
                ends += 1;
            }
        }
        previous = mask;
    }
    ends
}

/// Takes a bit out and puts it in elsewhere; those between make room.
fn move_bit(mask: u64, from: usize, to: usize) -> u64 {
    let below = |bit: usize| (1u64 << bit) - 1;
    let bit = mask >> from & 1;
    let rest = mask & below(from) | (mask >> 1) & !below(from);
    rest & below(to) | (rest & !below(to)) << 1 | bit << to
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_frames_share_are_counted_once() {
        assert_eq!(count_nodes(&[0b0110, 0b0111, 0b1100]), 2 + 1 + 2);
        assert_eq!(count_nodes(&[0, u64::MAX]), 64);
    }

    #[test]
    fn ends_are_masks_and_where_they_part() {
        assert_eq!(count_ends(&[]), 0);
        assert_eq!(count_ends(&[0]), 0);
        // Part at 0b0110, which is the first.
        assert_eq!(count_ends(&[0b0110, 0b0111, 0b1100]), 3);
        // The first two part at 0b1000, which is no mask; the third with them at the root.
        assert_eq!(count_ends(&[0b1001, 0b1010, 1 << 63]), 4);
        assert_eq!(count_ends(&[0b1001, 0b1010, 0b1100, u64::MAX]), 5);
    }

    #[test]
    fn moving_a_bit_keeps_the_order_of_the_others() {
        assert_eq!(move_bit(0b10010, 1, 3), 0b11000);
        assert_eq!(move_bit(0b01100, 3, 0), 0b01001);
        assert_eq!(move_bit(1 << 63 | 1, 63, 0), 0b11);
        assert_eq!(move_bit(0b11, 0, 63), 1 << 63 | 1);
    }
}
