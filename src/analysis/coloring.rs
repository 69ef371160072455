//! Decides which local each value of a function is in, so that frames are alike.
//!
//! Compilers give values locals without regard to calls. Two arms of a `switch` may keep what they need after a call in
//! two locals where one would do, and one local may hold values that have nothing to do with each other. Each landing's
//! frame then holds other locals, and has an epilogue and a mask of its own.
//!
//! A *web* is a local's sets and the reads that may find them. Webs that are never live at once can be in one local. Here
//! those that are live after most landings choose first, and each takes the first local, of those that have been chosen,
//! that is free: so most frames hold the first few of these, and differ by little.
//!
//! ```text
//! (switch (local.set $a …) (call $f) (… $a)        $a is live after the call
//!         (local.set $b …) (call $g) (… $b))       $b is: it takes $a, and both calls leave for one epilogue
//! ```
//!
//! Engines' compilers that optimise rename locals anyway: to them, this is the same function. There are never more locals
//! than before; where the first that is free does not lead to that, values stay where they are.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use crate::ir::{Function, Type, Web, Webs};
use crate::plan::LocalIndex;

/// Landings from which on frames can be alike.
const MIN_LANDINGS: u32 = 2;

/// A local for each web, in the order of the webs; or none, if they are to stay where they are.
pub fn choose_locals(webs: &Webs<'_>, function: Function<'_>) -> Option<Vec<LocalIndex>> {
    let list = webs.list();
    if list.is_empty() || webs.landing_count() < MIN_LANDINGS {
        return None;
    }
    let mut coloring = Coloring::new(list, webs, function);
    let mut order: Vec<usize> = (0..list.len()).collect();
    order.sort_by_key(|&web| (Reverse(list[web].landings), Reverse(list[web].uses), web));
    let (fixed, others): (Vec<usize>, Vec<usize>) = order.into_iter().partition(|&web| coloring.is_fixed(web));
    for web in fixed {
        coloring.put(web, list[web].local);
    }
    for web in others {
        let local = coloring.find_local(web)?;
        coloring.put(web, local);
    }
    coloring.locals.into_iter().collect()
}

/// The locals of one type.
#[derive(Default)]
struct Locals {
    /// In the order in which they were first chosen.
    chosen: Vec<LocalIndex>,
    others: BTreeSet<LocalIndex>,
}

struct Coloring<'a> {
    webs: &'a [Web],
    /// Webs that are live at once with each.
    conflicts: Vec<Vec<u32>>,
    types: Vec<Type>,
    params: u32,
    by_type: HashMap<Type, Locals>,
    /// What was chosen, by web.
    locals: Vec<Option<LocalIndex>>,
    /// By local, the last web that asked and could not have it.
    taken_for: Vec<usize>,
}

impl<'a> Coloring<'a> {
    fn new(list: &'a [Web], webs: &Webs<'_>, function: Function<'_>) -> Self {
        let mut conflicts = vec![Vec::new(); list.len()];
        for pair in webs.conflicts() {
            conflicts[pair.first as usize].push(pair.second);
            conflicts[pair.second as usize].push(pair.first);
        }
        let (types, params) = (function.local_types(), function.num_params());
        let mut by_type: HashMap<Type, Locals> = HashMap::new();
        for (local, &type_) in (0..).zip(&types) {
            by_type.entry(type_).or_default().others.insert(local);
        }
        let (locals, taken_for) = (vec![None; list.len()], vec![usize::MAX; types.len()]);
        Coloring { webs: list, conflicts, types, params, by_type, locals, taken_for }
    }

    /// Arguments are where callers put them. References have locals of types that fit, and some are never null.
    fn is_fixed(&self, web: usize) -> bool {
        let Web { local, from_entry, .. } = self.webs[web];
        from_entry && local < self.params || !self.types[local as usize].is_numeric()
    }

    fn put(&mut self, web: usize, local: LocalIndex) {
        self.locals[web] = Some(local);
        let of_type = self.by_type.entry(self.types[local as usize]).or_default();
        if of_type.others.remove(&local) {
            of_type.chosen.push(local);
        }
    }

    /// The first local that is free for the web, of those that have been chosen, or else its own, or any.
    fn find_local(&mut self, web: usize) -> Option<LocalIndex> {
        for &other in &self.conflicts[web] {
            if let Some(local) = self.locals[other as usize] {
                self.taken_for[local as usize] = web;
            }
        }
        let Web { local: own, from_entry, .. } = self.webs[web];
        // A parameter is not zero at the start.
        let can_have = |local: LocalIndex| !from_entry || local >= self.params;
        let Locals { chosen, others } = self.by_type.get(&self.types[own as usize])?;
        let is_free = |&local: &LocalIndex| self.taken_for[local as usize] != web && can_have(local);
        let own = others.get(&own).filter(|&&own| can_have(own));
        chosen.iter().find(|&local| is_free(local)).or(own).or(others.iter().find(|&&local| can_have(local))).copied()
    }
}
