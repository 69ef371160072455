//! Decides which epilogue each landing's test leaves for, and what the epilogues share.
//!
//! An epilogue reads all locals that a frame of any of its sites can hold. A local that one site's frame does not hold
//! is dead there, but if the site's test leaves for an epilogue that reads it, an engine must keep it up to the test all
//! the same: it is spilled around calls and carried around loops. That, not the test, is most of what instrumentation
//! costs in time.
//!
//! So in a function that is worth it, each site leaves for an epilogue that reads exactly what its frame holds. Epilogues
//! go on in each other: slots are pushed in the order of the frame, so that the frames of two sites often end alike.
//!
//! ```text
//! site  frame          epilogues
//! 0     $a, $c, $d     0: push $a, go on in 2
//! 1     $b, $c, $d     1: push $b, go on in 2
//! 2     $c, $d         2: push $c, $d
//! ```
//!
//! In other functions all sites share one epilogue, which pushes by the site's mask. Between these there is only what
//! [`alike`](crate::analysis::alike) does: a local that some epilogues read long after it is dead is no longer one value in
//! one place for an engine's register allocator.
//!
//! A branch takes along the site, and values that the epilogue expects in other registers. wasmtime puts that code
//! between the test and what follows, so that execution that stays has to jump over it; if the branch is in an arm of an
//! `if`, it goes to the end of the function. Such tests are for functions with exact epilogues: in their inner loops, and
//! where they call themselves, because what a branch takes along can make the engine's frame larger. For the same reason
//! these push few locals with one call.
//!
//! V8's baseline compiler remembers for each label, and at each `if`, where all locals are. What it needs at most is what
//! the largest functions need: these have no arms, and exact epilogues must be worth this memory, too.

use std::collections::BTreeSet;

use crate::analysis::regions::Tree;
use crate::analysis::slot_order;
use crate::frame::{MASK_BITS, POP_GROUPS, PUSH_GROUP, SMALL_PUSH_GROUP};
use crate::plan::{Epilogue, FunctionPlan, Site, Slot, TestForm};

/// How much more often code is assumed to run for each loop around it.
const LOOP_WEIGHT: f64 = 4.0;
/// Loops counted, at most.
const MAX_DEPTH: u32 = 2;
/// Bytes that it is worth not to keep one dead value up to a test outside of loops.
pub(super) const BYTES_PER_COST: f64 = 0.45;

/// Labels times locals that compilers have room for anyway.
const FREE_CELLS: usize = 4000;
/// Bytes that it is worth to spare them one more.
const BYTES_PER_CELL: f64 = 6.0;

/// Landings times locals, at most, of functions whose frames may be made alike.
const MAX_ALIKE: usize = 8000;

/// Bytes of an epilogue's block.
const LABEL_BYTES: usize = 3;
/// Bytes of a branch to an epilogue that is not the next one.
const JUMP_BYTES: usize = 2;
/// Bytes of a call, without its arguments.
const CALL_BYTES: usize = 2;
/// Bytes of reading a local; one more from the 128th on.
pub(super) const READ_BYTES: usize = 2;
/// Bytes of a call that ends a frame.
const FINISH_BYTES: usize = 5;
/// Bytes of one more mask in a function that gives masks: a block, a number and an operation.
const DIFFERENT_MASK_BYTES: usize = 9;
/// Bytes of looking a mask up.
const MASK_BYTES: usize = 8;

/// Loops around a test that has an arm, at least.
const MIN_ARM_DEPTH: u32 = 2;
/// Landings of a function that has arms, at most.
const MAX_ARMS: usize = 100;

/// Locals, at most, of functions that call themselves whose resume functions have small frames on the engine's stack, which
/// are not to grow.
const SMALL_FRAME: usize = 16;

/// A slot that some sites' frames hold, on the way to those that come behind it.
struct Node {
    slot: u32,
    parent: usize,
    children: Vec<usize>,
    /// Sites whose frames begin here.
    sites: Vec<Site>,
}

/// The frames of sites as paths from their last slot to their first. Node 0 is the end of all frames, and no slot.
struct Paths {
    nodes: Vec<Node>,
}

/// Whether each site of a function leaves for an epilogue of its own frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exact {
    No,
    /// Frames may be made alike ([`alike`](crate::analysis::alike)).
    Yes,
    /// Frames are to hold what is live: dead values can make the engine's frame of a function that calls itself larger,
    /// and in large functions register allocators do not find places for them that cost nothing.
    Strictly,
}

/// Decides if exact epilogues are worth it, and how many locals are pushed with one call. The frame must be laid out.
/// `index` is the function's own.
pub fn are_worth_it(plan: &mut FunctionPlan, tree: &Tree, index: u32) -> Exact {
    let is_recursive = calls_itself(plan, index);
    let is_small = plan.locals.len() <= SMALL_FRAME;
    plan.push_group = if is_recursive { SMALL_PUSH_GROUP } else { PUSH_GROUP };
    plan.resume_push_group = if is_recursive && is_small { SMALL_PUSH_GROUP } else { PUSH_GROUP };
    let slots = plan.sometimes().len() as u32;
    // Dead values that one epilogue for all would keep.
    let dead_values = |site| weight(tree, site) * f64::from(slots - plan.mask(site).count_ones());
    let cost: f64 = plan.sites().map(dead_values).sum();
    let exact = Paths::of(plan).into_epilogues(plan);
    let common = bytes_of_pushes(&slots_by_type(plan), plan.push_group) + MASK_BYTES + LABEL_BYTES;
    let bytes = bytes_of(&exact, plan.push_group) as f64 - common as f64;
    let cells = (exact.len() * plan.locals.len()).saturating_sub(FREE_CELLS);
    match cost * BYTES_PER_COST >= bytes + cells as f64 * BYTES_PER_CELL {
        false => Exact::No,
        true if cells == 0 && !is_recursive && plan.landings.len() * plan.locals.len() <= MAX_ALIKE => Exact::Yes,
        true => Exact::Strictly,
    }
}

/// Fills in the epilogues, and which of them each landing's test leaves for. The frame must be laid out; where all sites
/// share one epilogue, its slots are put in order by type. `index` is the function's own.
pub fn share(plan: &mut FunctionPlan, tree: &Tree, exact: Exact, index: u32) {
    let is_exact = exact != Exact::No;
    plan.epilogues = if is_exact {
        Paths::of(plan).into_epilogues(plan)
    } else {
        // Frames need not end alike: slots of one type are neighbours, so that they share helpers.
        let by_type = slots_by_type(plan);
        plan.frame[..by_type.len()].copy_from_slice(&by_type);
        vec![plan.common_epilogue()]
    };
    let has_arms = is_exact && plan.landings.len() <= MAX_ARMS;
    let min_depth = if calls_itself(plan, index) { 0 } else { MIN_ARM_DEPTH };
    for (number, epilogue) in plan.epilogues.iter().enumerate() {
        for &site in &epilogue.sites {
            let landing = &mut plan.landings[site.0 as usize];
            landing.epilogue = number;
            let is_arm = has_arms && loops_around(tree, site) >= min_depth;
            landing.test_form = if is_arm { TestForm::Arm } else { TestForm::Branch };
        }
    }
}

/// An epilogue for each kind of frame.
pub fn exact(plan: &FunctionPlan) -> Vec<Epilogue> {
    Paths::of(plan).into_epilogues(plan)
}

/// Gives each kind of frame an epilogue of its own, in a function that has been planned.
pub fn make_exact(plan: &mut FunctionPlan) {
    if !plan.epilogues.iter().any(Epilogue::pushes_by_mask) {
        return;
    }
    slot_order::improve(plan);
    plan.epilogues = exact(plan);
    for (number, epilogue) in plan.epilogues.iter().enumerate() {
        for &site in &epilogue.sites {
            plan.landings[site.0 as usize].epilogue = number;
        }
    }
}

fn calls_itself(plan: &FunctionPlan, index: u32) -> bool {
    plan.landings.iter().any(|landing| landing.direct == Some(index))
}

/// The slots that only some frames hold, by type. Bits of what most frames hold come last, so that masks are small numbers.
fn slots_by_type(plan: &FunctionPlan) -> Vec<Slot> {
    let mut by_type = plan.sometimes().to_vec();
    let held = |slot: &Slot| plan.sites().filter(|&site| plan.landing(site).holds(slot)).count();
    by_type.sort_by_cached_key(|slot| (slot.type_.in_frame(), held(slot)));
    by_type
}

/// Bytes of pushing frames with helpers, in a function, and in its resume function.
pub(super) fn bytes_with_helpers(plan: &FunctionPlan) -> [usize; 2] {
    let slots = |epilogue: &Epilogue| epilogue.slots.iter().map(|(slot, _)| *slot).collect::<Vec<Slot>>();
    let masked = |is_masked: bool| if is_masked { MASK_BYTES } else { 0 };
    let [common, always] = [slots(&plan.common_epilogue()), plan.always().to_vec()];
    let by_mask = plan.epilogues.iter().any(Epilogue::pushes_by_mask);
    let own = bytes_of(&plan.epilogues, plan.push_group) + masked(by_mask) + bytes_of_pushes(&always, plan.push_group);
    let resume = bytes_of_pushes(&[common, always].concat(), plan.resume_push_group) + LABEL_BYTES;
    [own, resume + masked(!plan.sometimes().is_empty())].map(|bytes| bytes + FINISH_BYTES)
}

/// Bytes of popping frames with helpers.
pub(super) fn bytes_of_popping(plan: &FunctionPlan) -> usize {
    let masks = if plan.sometimes().is_empty() { 0 } else { MASK_BYTES + bytes_of_masks(plan) };
    FINISH_BYTES + masks + bytes_of_pops(plan.always()) + bytes_of_pops(plan.sometimes())
}

/// Bytes of epilogues, less those of sites that tests need not bring.
fn bytes_of(epilogues: &[Epilogue], push_group: usize) -> usize {
    let mut is_single: Vec<bool> = epilogues.iter().map(|epilogue| epilogue.sites.len() == 1).collect();
    epilogues.iter().filter_map(|epilogue| epilogue.next).for_each(|next| is_single[next] = false);
    let bytes = epilogues.iter().enumerate().map(|(index, epilogue)| {
        let slots: Vec<Slot> = epilogue.slots.iter().map(|(slot, _)| *slot).collect();
        let is_jump = epilogue.next.is_some_and(|next| next != index + 1);
        let jump = if is_jump { JUMP_BYTES } else { 0 };
        LABEL_BYTES + bytes_of_pushes(&slots, push_group) + jump - usize::from(is_single[index])
    });
    bytes.sum()
}

/// Bytes of calls of push helpers.
fn bytes_of_pushes(slots: &[Slot], push_group: usize) -> usize {
    let runs = slots.chunk_by(|a, b| a.type_.in_frame() == b.type_.in_frame());
    let calls: usize = runs.map(|run| run.len().div_ceil(push_group)).sum();
    let reads: usize = slots.iter().map(|slot| READ_BYTES + usize::from(slot.local > 127)).sum();
    calls * CALL_BYTES + reads
}

/// Bytes of a function's masks: a number, or a function that has a branch for each site.
fn bytes_of_masks(plan: &FunctionPlan) -> usize {
    if plan.landings.len() * plan.sometimes().len() <= MASK_BITS {
        return 0;
    }
    let masks: BTreeSet<u64> = plan.sites().map(|site| plan.mask(site)).collect();
    plan.landings.len() + masks.len() * DIFFERENT_MASK_BYTES
}

/// Bytes of calls of pop helpers, and of taking what they leave.
fn bytes_of_pops(slots: &[Slot]) -> usize {
    let runs = slots.chunk_by(|a, b| a.type_ == b.type_);
    let calls: usize = runs.map(|run| run.len().div_ceil(POP_GROUPS[0])).sum();
    calls * CALL_BYTES + slots.len() * 2 * READ_BYTES
}

/// How often a landing's test is assumed to run.
pub(super) fn weight(tree: &Tree, site: Site) -> f64 {
    LOOP_WEIGHT.powi(loops_around(tree, site).min(MAX_DEPTH) as i32)
}

fn loops_around(tree: &Tree, site: Site) -> u32 {
    tree.loops_around(tree.landing_row(site))
}

impl Paths {
    fn of(plan: &FunctionPlan) -> Paths {
        let mut paths =
            Paths { nodes: vec![Node { slot: u32::MAX, parent: 0, children: Vec::new(), sites: Vec::new() }] };
        for site in plan.sites() {
            paths.add(plan.mask(site), site);
        }
        paths
    }

    /// The slots of a mask from the last to the first.
    fn slots(mask: u64) -> impl Iterator<Item = u32> {
        (0..u64::BITS).rev().filter(move |i| mask >> i & 1 == 1)
    }

    fn child(&self, node: usize, slot: u32) -> Option<usize> {
        self.nodes[node].children.iter().copied().find(|&child| self.nodes[child].slot == slot)
    }

    fn add(&mut self, mask: u64, site: Site) {
        let mut node = 0;
        for slot in Self::slots(mask) {
            node = self.child(node, slot).unwrap_or_else(|| {
                let child = self.nodes.len();
                self.nodes.push(Node { slot, parent: node, children: Vec::new(), sites: Vec::new() });
                self.nodes[node].children.push(child);
                child
            });
        }
        self.nodes[node].sites.push(site);
    }

    /// Lists the epilogues, each before the one that it goes on in.
    fn into_epilogues(mut self, plan: &FunctionPlan) -> Vec<Epilogue> {
        let mut epilogues: Vec<Epilogue> = Vec::new();
        // In this order a node comes after all nodes that go on in it, and right after the last of these.
        let mut order = Vec::new();
        let mut stack = vec![0];
        while let Some(node) = stack.pop() {
            order.push(node);
            stack.extend(&self.nodes[node].children);
        }
        order.reverse();
        let mut index = vec![usize::MAX; self.nodes.len()];
        for &node in &order {
            let is_single = self.nodes[node].children.len() == 1 && self.nodes[node].sites.is_empty();
            if is_single && node != 0 {
                // The child's epilogue pushes this slot, too.
                index[node] = index[self.nodes[node].children[0]];
            } else {
                let mut sites = std::mem::take(&mut self.nodes[node].sites);
                sites.sort_unstable();
                index[node] = epilogues.len();
                epilogues.push(Epilogue { sites, slots: Vec::new(), masks: None, next: None });
            }
            if node != 0 {
                let slot: Slot = plan.sometimes()[self.nodes[node].slot as usize];
                epilogues[index[node]].slots.push((slot, false));
            }
        }
        for &node in order.iter().filter(|&&node| node != 0) {
            let parent = self.nodes[node].parent;
            if index[parent] != index[node] {
                epilogues[index[node]].next = Some(index[parent]);
            }
        }
        epilogues
    }
}
