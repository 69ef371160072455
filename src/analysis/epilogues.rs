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
//! In other functions all sites share one epilogue, which pushes by the site's mask. Nothing in between: a local that
//! some epilogues read long after it is dead is no longer one value in one place for an engine's register allocator.
//!
//! A branch takes along the site, and values that the epilogue expects in other registers. wasmtime puts that code
//! between the test and what follows, so that execution that stays has to jump over it; if the branch is in an arm of an
//! `if`, it goes to the end of the function. Such tests are for the functions with exact epilogues, too, but not for very
//! large ones: V8's baseline compiler remembers at each `if` where all locals are.

use crate::analysis::regions::Tree;
use crate::plan::{Epilogue, FunctionPlan, Site, Slot, TestForm};

/// How much more often code is assumed to run for each loop around it.
const LOOP_WEIGHT: f64 = 4.0;
/// Loops counted, at most.
const MAX_DEPTH: u32 = 3;
/// Bytes that it is worth not to keep one dead value up to a test outside of loops, or not to jump over what a test's
/// branch takes along.
const BYTES_PER_COST: f64 = 0.27;
/// Bytes of an epilogue besides those of its slots: a block, the call of a push helper, a branch.
const EPILOGUE_BYTES: f64 = 9.0;
/// Bytes of a slot in an epilogue.
const SLOT_BYTES: f64 = 2.0;
/// Bytes of looking a mask up.
const MASK_BYTES: f64 = 6.0;
/// Bytes of an arm for a test's branch.
const ARM_BYTES: f64 = 2.0;

/// Tests with arms in one function, at most.
const MAX_ARMS: usize = 100;

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

/// Fills in the epilogues, and which of them each landing's test leaves for. The frame must be laid out; where all sites
/// share one epilogue, its slots are put in order by type.
pub fn share(plan: &mut FunctionPlan, tree: &Tree) {
    let mut paths = Paths { nodes: vec![Node { slot: u32::MAX, parent: 0, children: Vec::new(), sites: Vec::new() }] };
    let slots = plan.sometimes().len() as u32;
    let has_arms = plan.landings.len() <= MAX_ARMS;
    // Dead values that one epilogue for all would keep, and jumps; and what epilogues for each are larger than it.
    let mut cost = 0.0;
    let mut bytes = -EPILOGUE_BYTES - SLOT_BYTES * f64::from(slots) - MASK_BYTES;
    for site in plan.sites() {
        let mask = plan.mask(site);
        cost += weight(tree, site) * f64::from(slots - mask.count_ones() + u32::from(has_arms));
        bytes += paths.bytes_to_add(mask);
        paths.add(mask, site);
    }
    if has_arms {
        bytes += ARM_BYTES * paths.sites_to_bring() as f64;
    }
    let is_worth_it = cost * BYTES_PER_COST >= bytes;
    plan.epilogues = if is_worth_it {
        paths.into_epilogues(plan)
    } else {
        // Frames need not end alike: slots of one type are neighbours, so that they share helpers.
        plan.frame[..slots as usize].sort_by_key(|slot| slot.type_.in_frame());
        vec![plan.common_epilogue()]
    };
    for (index, epilogue) in plan.epilogues.iter().enumerate() {
        for site in &epilogue.sites {
            let landing = &mut plan.landings[site.0 as usize];
            landing.epilogue = index;
            landing.test_form = if is_worth_it && has_arms { TestForm::Arm } else { TestForm::Branch };
        }
    }
}

/// How often a landing's test is assumed to run.
fn weight(tree: &Tree, site: Site) -> f64 {
    let depth = tree.loops_around(tree.landing_row(site));
    LOOP_WEIGHT.powi(depth.min(MAX_DEPTH) as i32)
}

impl Paths {
    /// The slots of a mask from the last to the first.
    fn slots(mask: u64) -> impl Iterator<Item = u32> {
        (0..u64::BITS).rev().filter(move |i| mask >> i & 1 == 1)
    }

    fn child(&self, node: usize, slot: u32) -> Option<usize> {
        self.nodes[node].children.iter().copied().find(|&child| self.nodes[child].slot == slot)
    }

    fn bytes_to_add(&self, mask: u64) -> f64 {
        let mut node = 0;
        let mut slots = Self::slots(mask).peekable();
        while let Some(next) = slots.peek().and_then(|&slot| self.child(node, slot)) {
            node = next;
            slots.next();
        }
        match slots.count() {
            0 if node == 0 || !self.nodes[node].sites.is_empty() => 0.0,
            count => EPILOGUE_BYTES + SLOT_BYTES * count as f64,
        }
    }

    /// Sites that are not known by the epilogue that they leave for.
    fn sites_to_bring(&self) -> usize {
        let is_single = |node: &&Node| node.sites.len() == 1 && node.children.is_empty();
        self.nodes.iter().map(|node| node.sites.len()).sum::<usize>() - self.nodes.iter().filter(is_single).count()
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
