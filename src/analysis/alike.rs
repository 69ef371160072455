//! Decides which frames hold values that are dead there, so that they end as others do.
//!
//! Each exact epilogue ([`epilogues`](crate::analysis::epilogues)) is a label and a call, which compilers of engines take
//! longer for than for the bytes. Where sites' frames differ by a few numbers, and none is in an inner loop, all hold these,
//! and leave for one epilogue.
//!
//! A value is not kept where it would have to go through the head of a loop for that, where it is dead: what is in such a
//! local is of the turn before, or from before the loop, and an engine would carry it around all of the loop. Nor are
//! frames made alike where a function calls itself or is large ([`Exact::Strictly`]).
//!
//! [`Exact::Strictly`]: crate::analysis::epilogues::Exact::Strictly

use crate::analysis::epilogues::{BYTES_PER_COST, READ_BYTES, weight};
use crate::analysis::regions::Tree;
use crate::analysis::slot_order::{count_ends, count_nodes};
use crate::ir::{Liveness, LivenessPoint};
use crate::plan::{FunctionPlan, Site, Slot};

/// Loops around a site whose frame is to hold more, at most.
const MAX_LOOPS: u32 = 1;
/// Slots that are dead at some of the sites whose frames are alike, at most: each takes room in a frame.
const MAX_DEAD: u32 = 4;
/// Bytes that an epilogue counts, besides reading its slots: twice those that it has.
const EPILOGUE_BYTES: usize = 12;
/// Bytes that it may cost to make two frames alike: what an epilogue with a few slots counts.
const MAX_PRICE: f64 = 18.0;
/// Pairs of frames that are looked at closely in one turn, the cheapest ones.
const CLOSE_LOOKS: usize = 24;

/// What is made alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Alike {
    Nothing,
    /// Frames hold more, and are to be laid out again.
    Some,
    /// All frames would be. One epilogue by mask does as well then, and they hold only what is live.
    All,
}

/// Sites whose frames hold the same.
struct Group {
    mask: u64,
    /// Slots that are live at all of the sites.
    live: u64,
    sites: Vec<Site>,
    /// How often a test of one of the sites is assumed to run.
    weight: f64,
    /// Slots that the frames may not hold.
    barred: u64,
}

/// Two groups, and what it costs to make them one.
struct Pair {
    price: f64,
    first: usize,
    second: usize,
}

impl Group {
    /// What it costs if the frames hold all slots of a mask, unless they may not.
    fn price(&self, mask: u64) -> Option<f64> {
        let more = mask & !self.mask;
        (more & self.barred == 0).then(|| self.weight * f64::from(more.count_ones()) * BYTES_PER_COST)
    }

    fn add(&mut self, other: Group) {
        self.sites.extend(other.sites);
        self.weight += other.weight;
        self.barred |= other.barred;
        self.live &= other.live;
    }
}

/// Lets frames hold more, unless all would be alike. The frame must be laid out.
pub fn make_alike(plan: &mut FunctionPlan, tree: &Tree, liveness: &Liveness) -> Alike {
    if plan.sometimes().is_empty() {
        return Alike::Nothing;
    }
    let mut groups = groups(plan, tree, liveness);
    let mut bytes = bytes_of(groups.iter().map(|group| group.mask));
    let mut changed = false;
    while let Some((first, second, left)) = best_pair(&groups, bytes) {
        let mask = groups[first].mask | groups[second].mask;
        // The higher index first.
        let (first, second) = (groups.swap_remove(first), groups.swap_remove(second));
        let mut joined = Group { mask, ..first };
        joined.add(second);
        match groups.iter_mut().find(|group| group.mask == mask) {
            Some(group) => group.add(joined),
            None => groups.push(joined),
        }
        bytes = left;
        changed = true;
    }
    match (changed, groups.len()) {
        (false, _) => Alike::Nothing,
        (true, 1) => Alike::All,
        (true, _) => {
            let slots = plan.sometimes().to_vec();
            for group in &groups {
                for &site in &group.sites {
                    hold(plan, site, &slots, group.mask);
                }
            }
            Alike::Some
        }
    }
}

/// The sites by what their frames hold, in the order of the first ones.
fn groups(plan: &FunctionPlan, tree: &Tree, liveness: &Liveness) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (site, barred) in plan.sites().zip(barred(plan, tree, liveness)) {
        let mask = plan.mask(site);
        let group = Group { mask, live: mask, sites: vec![site], weight: weight(tree, site), barred };
        match groups.iter_mut().find(|group| group.mask == mask) {
            Some(same) => same.add(group),
            None => groups.push(group),
        }
    }
    groups
}

/// By site, slots that its frame may not hold. A reference that is dead could be one that no frame can hold, and locals of
/// ours have no liveness.
fn barred(plan: &FunctionPlan, tree: &Tree, liveness: &Liveness) -> Vec<u64> {
    let is_ours = |slot: &Slot| slot.local as usize >= plan.locals.len();
    let mut barred = vec![0; plan.landings.len()];
    let mut questions = Vec::new();
    for (site, barred) in plan.sites().zip(&mut barred) {
        if tree.loops_around(tree.landing_row(site)) > MAX_LOOPS {
            *barred = u64::MAX;
            continue;
        }
        let expression = tree.landing_expr(site).address();
        for (i, slot) in plan.sometimes().iter().enumerate() {
            if is_ours(slot) || !slot.type_.is_numeric() {
                *barred |= 1 << i;
            } else {
                questions.push((LivenessPoint { expression, local: slot.local }, site, i));
            }
        }
    }
    questions.sort_unstable_by_key(|(point, ..)| *point);
    let points: Vec<LivenessPoint> = questions.iter().map(|(point, ..)| *point).collect();
    for ((_, site, i), is_stale) in questions.into_iter().zip(liveness.stale_after(&points)) {
        barred[site.0 as usize] |= u64::from(is_stale) << i;
    }
    barred
}

/// The two groups by which epilogues become smallest, its price taken into account, the later one first; and the bytes of
/// the epilogues then.
fn best_pair(groups: &[Group], bytes: usize) -> Option<(usize, usize, usize)> {
    let mut pairs: Vec<Pair> = Vec::new();
    for (first, a) in groups.iter().enumerate() {
        for (second, b) in groups[..first].iter().enumerate() {
            let mask = a.mask | b.mask;
            let dead = mask & !(a.live & b.live);
            if dead.count_ones() <= MAX_DEAD
                && let (Some(a), Some(b)) = (a.price(mask), b.price(mask))
                && a + b <= MAX_PRICE
            {
                pairs.push(Pair { price: a + b, first, second });
            }
        }
    }
    let order = |a: &Pair, b: &Pair| a.price.total_cmp(&b.price).then((a.first, a.second).cmp(&(b.first, b.second)));
    if pairs.len() > CLOSE_LOOKS {
        pairs.select_nth_unstable_by(CLOSE_LOOKS, order);
        pairs.truncate(CLOSE_LOOKS);
    }
    pairs.sort_unstable_by(order);
    let mut best: Option<(f64, (usize, usize, usize))> = None;
    for Pair { price, first, second } in pairs {
        let others = groups.iter().enumerate().filter(|&(i, _)| i != first && i != second).map(|(_, group)| group.mask);
        let left = bytes_of(others.chain([groups[first].mask | groups[second].mask]));
        let gain = bytes as f64 - left as f64 - price;
        if gain > best.as_ref().map_or(0.0, |(best, _)| *best) {
            best = Some((gain, (first, second, left)));
        }
    }
    best.map(|(_, pair)| pair)
}

/// Bytes of the epilogues of frames with these masks.
fn bytes_of(masks: impl Iterator<Item = u64>) -> usize {
    let mut masks: Vec<u64> = masks.collect();
    masks.sort_unstable();
    masks.dedup();
    let (slots, epilogues) = (count_nodes(&masks) as usize, count_ends(&masks) as usize);
    slots * READ_BYTES + epilogues * EPILOGUE_BYTES
}

/// Lets the site's frame hold the slots of a mask.
fn hold(plan: &mut FunctionPlan, site: Site, slots: &[Slot], mask: u64) {
    let landing = &mut plan.landings[site.0 as usize];
    let in_mask = slots.iter().enumerate().filter(|(i, _)| mask >> i & 1 == 1).map(|(_, slot)| slot);
    let mut dead: Vec<_> = in_mask.filter(|slot| !landing.holds(slot)).map(|slot| slot.local).collect();
    dead.sort_unstable();
    landing.dead = dead;
}
