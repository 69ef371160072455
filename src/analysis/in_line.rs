//! Decides which functions store their frames themselves, and load them in their resume functions, instead of calling
//! helpers for it.
//!
//! A value takes seven bytes then instead of two to be stored, and instead of four to be loaded; engines execute a third
//! as much while they unwind, and two thirds while they rewind. Most functions are on the stack of hardly any fork: so
//! the bytes that this may take go to those which are on it most often. How often that is is estimated by random walks
//! that begin at the calls of the entry imports and go from each function on to one of its callers.
//!
//! A load in line makes wasmtime keep the address of the memory in the engine's frame. So small functions that can be on a
//! stack many times, since they are on cycles of calls or between such, keep pop helpers.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::analysis::epilogues;
use crate::analysis::fork_path::ForkPath;
use crate::frame::WIDE_SITE;
use crate::ir::Type;
use crate::plan::{Callee, Epilogue, FunctionNumber, FunctionPlan};

/// Bytes that frames in line may take more in any module, of functions that this part of all frames is of.
const FREE_BYTES: usize = 24_000;
const FREE_SHARE: f64 = 1.0 / 90.0;
/// Bytes from which on one of these takes the place of many: it may take so many more if it is on the stack of every fork, once;
/// in proportion else.
const LARGE: f64 = 3_000.0;
const LARGE_PRICE: f64 = 24_000.0;
/// Bytes that those of a function may take more anyway if it is on the stack of every fork, once; in proportion else.
const MOST_PRICE: f64 = 12_000.0;
/// Locals, at most, of functions that load nothing in line if they can be on a stack many times.
const SMALL_FRAME: usize = 16;
/// How often a function that calls itself is assumed to be on a stack, where others are once.
const ITSELF: f64 = 4.0;
/// How many times too high the bytes can be of a function whose slots are not in the best order.
const TOO_HIGH: usize = 3;
/// Calls that a walk goes back, at most.
const STEPS: usize = 40;
/// How many of the walks go on at each call.
const GOING_ON: f64 = 0.9;

/// Bytes of storing a value at the position, or of loading it: two for the position and the local each, three for the
/// access.
const STORE_BYTES: usize = 7;
/// Bytes of moving the position.
const MOVE_BYTES: usize = 7;
/// Bytes of an epilogue's label, of keeping the site that comes along, and of storing it.
const ENTER_BYTES: usize = 3 + STORE_BYTES;
/// Bytes of a branch to an epilogue, and of the label that it needs.
const JUMP_BYTES: usize = 5;
/// Bytes of a resume function's choice between kinds of frames.
const CHOICE_BYTES: usize = 8;
/// Bytes of starting to load one kind: its label, and the position that moves.
const KIND_BYTES: usize = 3 + MOVE_BYTES;
/// Bytes of the header, and of testing whether the frame fits.
const END_BYTES: usize = STORE_BYTES + MOVE_BYTES + 14;

/// Chooses functions, and gives each of them an epilogue for each kind of frame. Functions must be numbered.
pub fn choose(path: &ForkPath, plans: &mut [FunctionPlan]) {
    // Equal functions, which share a resume function, are all in line or none.
    let mut equal: HashMap<FunctionNumber, (usize, f64, bool)> = HashMap::new();
    let calls = Calls::of(path, plans);
    let (visits, may_recur) = (visits(&calls, plans), calls.cycles(plans));
    let mut all_visits = 0.0;
    for index in (0..plans.len()).filter(|&index| plans[index].is_resumable()) {
        let (count, sum, recurs) = equal.entry(plans[index].number).or_default();
        (*count, *sum, *recurs) = (*count + 1, *sum + visits[index], *recurs || may_recur[index]);
        all_visits += visits[index];
    }
    let candidate = |(index, plan): (usize, &FunctionPlan)| {
        let &(count, visits, recurs) =
            equal.get(&plan.number).filter(|(_, visits, _)| *visits > 0.0 && can_be(plan))?;
        let share = visits / all_visits;
        let loads = !recurs || plan.locals.len() > SMALL_FRAME;
        // Pop helpers read sites otherwise than they are stored in line.
        if !loads && plan.landings.len() > WIDE_SITE as usize {
            return None;
        }
        let candidate = Candidate { index, visits, share, bytes: more_bytes(plan, plan, count, loads), exact: None };
        if !candidate.is_worth(TOO_HIGH, 0) {
            return None;
        }
        let mut exact = plan.clone();
        epilogues::make_exact(&mut exact);
        (exact.in_line, exact.loads_in_line) = (true, loads);
        Some(Candidate { bytes: more_bytes(plan, &exact, count, loads), exact: Some(exact), ..candidate })
    };
    let mut candidates: Vec<Candidate> = plans.iter().enumerate().filter_map(candidate).collect();
    candidates.sort_by(|a, b| a.price().total_cmp(&b.price()).then(a.index.cmp(&b.index)));
    let mut spent = 0;
    for candidate in candidates {
        if !candidate.is_worth(1, spent) {
            continue;
        }
        if !candidate.is_paid_for(1) {
            spent += candidate.bytes;
        }
        if let Some(exact) = candidate.exact {
            plans[candidate.index] = exact;
        }
    }
}

/// A function that can have its frames in line.
struct Candidate {
    index: usize,
    visits: f64,
    /// Of all visits.
    share: f64,
    bytes: usize,
    /// Its plan then.
    exact: Option<FunctionPlan>,
}

impl Candidate {
    fn price(&self) -> f64 {
        self.bytes as f64 / self.visits
    }

    /// Whether it is worth its bytes, when they are so many times too high, and so many have been spent.
    fn is_worth(&self, too_high: usize, spent: usize) -> bool {
        let is_free = self.share >= FREE_SHARE
            && self.bytes as f64 <= too_high as f64 * (LARGE_PRICE * self.visits).max(LARGE)
            && spent + self.bytes <= too_high * FREE_BYTES;
        is_free || self.is_paid_for(too_high)
    }

    /// Whether it is on the stack so often that it may take its bytes, when they are so many times too high.
    fn is_paid_for(&self, too_high: usize) -> bool {
        self.bytes as f64 <= too_high as f64 * MOST_PRICE * self.visits
    }
}

/// Whether a function's frames can be stored in line: numbers only.
fn can_be(plan: &FunctionPlan) -> bool {
    let is_number = |type_: Type| type_.is_numeric() && type_.components().len() == 1;
    plan.has_own_resume() && !plan.results.has_reference() && plan.frame.iter().all(|slot| is_number(slot.type_))
}

/// Bytes that the frames of so many equal functions take more in line, in them and in their resume function, with slots
/// in the order of another plan. `loads`: the resume function loads them in line, too.
fn more_bytes(plan: &FunctionPlan, ordered: &FunctionPlan, count: usize, loads: bool) -> usize {
    let exact = epilogues::exact(ordered);
    let popping = epilogues::bytes_of_popping(plan);
    let loading = if loads { bytes_of_loads(&exact, plan) } else { popping };
    let in_line = (count + 1) * bytes_of(&exact, plan.always().len()) + loading;
    let [own, resume] = epilogues::bytes_with_helpers(plan);
    in_line.saturating_sub(count * own + resume + popping)
}

/// Bytes of epilogues in line.
fn bytes_of(epilogues: &[Epilogue], always: usize) -> usize {
    let stores = |epilogue: &Epilogue| epilogue.slots.len() * STORE_BYTES;
    let enter = |epilogue: &Epilogue| if epilogue.sites.is_empty() { 0 } else { ENTER_BYTES };
    let go_on = |epilogue: &Epilogue| if epilogue.next.is_none() { 0 } else { MOVE_BYTES + JUMP_BYTES };
    let epilogues: usize = epilogues.iter().map(|e| stores(e) + enter(e) + go_on(e)).sum();
    epilogues + always * STORE_BYTES + END_BYTES
}

/// Bytes of loading frames in line.
fn bytes_of_loads(epilogues: &[Epilogue], plan: &FunctionPlan) -> usize {
    let header = STORE_BYTES + MOVE_BYTES;
    if epilogues.iter().filter(|epilogue| !epilogue.sites.is_empty()).count() == 1 {
        return header + plan.frame.len() * STORE_BYTES;
    }
    let parts = epilogues.iter().filter(|epilogue| !epilogue.slots.is_empty()).map(|epilogue| {
        let start = if epilogue.sites.is_empty() { 0 } else { KIND_BYTES };
        start + epilogue.slots.len() * STORE_BYTES + MOVE_BYTES + JUMP_BYTES
    });
    header + plan.always().len() * STORE_BYTES + CHOICE_BYTES + plan.landings.len() + parts.sum::<usize>()
}

/// By plan, how often walks come to the function: they begin at those that call entry imports.
fn visits(calls: &Calls, plans: &[FunctionPlan]) -> Vec<f64> {
    let starts: Vec<usize> = (0..plans.len()).filter(|&i| calls_an_entry(&plans[i])).collect();
    let mut walks = vec![0.0; plans.len()];
    for &start in &starts {
        walks[start] = 1.0 / starts.len() as f64;
    }
    let mut visits = vec![0.0; plans.len()];
    for _ in 0..STEPS {
        visits.iter_mut().zip(&walks).for_each(|(visits, here)| *visits += here);
        walks = calls.step(plans, &walks);
    }
    for (visits, _) in visits.iter_mut().zip(&calls.calls_itself).filter(|(_, calls_itself)| **calls_itself) {
        *visits *= ITSELF;
    }
    visits
}

fn calls_an_entry(plan: &FunctionPlan) -> bool {
    plan.landings.iter().any(|landing| landing.callee == Callee::Entry)
}

/// Who calls whom. Calls whose callee is not known are taken for calls of all functions in tables that return the same.
struct Calls {
    /// By plan, the plans of the functions that call it, other than itself.
    callers: Vec<BTreeSet<usize>>,
    calls_itself: Vec<bool>,
    is_in_table: Vec<bool>,
    /// Plans of functions with calls whose callee is not known, by what it returns.
    of_unknown: BTreeMap<Type, BTreeSet<usize>>,
}

impl Calls {
    fn of(path: &ForkPath, plans: &[FunctionPlan]) -> Calls {
        let defined = path.defined();
        let of_function: HashMap<u32, usize> = defined.iter().enumerate().map(|(plan, &index)| (index, plan)).collect();
        let mut callers: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); plans.len()];
        let mut calls_itself = vec![false; plans.len()];
        let mut of_unknown: BTreeMap<Type, BTreeSet<usize>> = BTreeMap::new();
        for (caller, plan) in plans.iter().enumerate() {
            for landing in plan.landings.iter().filter(|landing| landing.callee != Callee::Entry) {
                let Some(direct) = landing.direct else {
                    of_unknown.entry(landing.result).or_default().insert(caller);
                    continue;
                };
                match of_function.get(&direct) {
                    Some(&callee) if callee == caller => calls_itself[caller] = true,
                    Some(&callee) => drop(callers[callee].insert(caller)),
                    None => {}
                }
            }
        }
        let mut is_in_table = vec![false; plans.len()];
        for plan in path.in_tables().iter().filter_map(|index| of_function.get(index)) {
            is_in_table[*plan] = true;
        }
        Calls { callers, calls_itself, is_in_table, of_unknown }
    }

    /// By plan, whether the function may be on a stack several times: it is on a cycle of calls, or on a way from one to
    /// another.
    fn cycles(&self, plans: &[FunctionPlan]) -> Vec<bool> {
        // What functions in tables return stands between these and the calls of unknown functions.
        let results: BTreeMap<Type, usize> = self.of_unknown.keys().copied().zip(plans.len()..).collect();
        let mut edges: Vec<(usize, usize)> = Vec::new();
        for (callee, callers) in self.callers.iter().enumerate() {
            edges.extend(callers.iter().map(|&caller| (caller, callee)));
            let unknown = results.get(&plans[callee].results).filter(|_| self.is_in_table[callee]);
            edges.extend(unknown.map(|&node| (node, callee)));
        }
        for (type_, callers) in &self.of_unknown {
            edges.extend(callers.iter().map(|&caller| (caller, results[type_])));
        }
        let count = plans.len() + results.len();
        let behind = behind_cycles(count, &edges);
        let back: Vec<(usize, usize)> = edges.iter().map(|&(caller, callee)| (callee, caller)).collect();
        let before = behind_cycles(count, &back);
        (0..plans.len()).map(|i| self.calls_itself[i] || behind[i] && before[i]).collect()
    }

    /// Where walks are after one call more, given how many there are where.
    fn step(&self, plans: &[FunctionPlan], walks: &[f64]) -> Vec<f64> {
        let mut next = vec![0.0; walks.len()];
        // In the order of the functions: types have none that is the same in each run.
        let mut through_tables: Vec<(Type, f64)> = Vec::new();
        for (index, &here) in walks.iter().enumerate().filter(|(_, here)| **here > 0.0) {
            let of_unknown = self.of_unknown.get(&plans[index].results).filter(|_| self.is_in_table[index]);
            let unknown = of_unknown.map_or(0, BTreeSet::len);
            let each = here * GOING_ON / (self.callers[index].len() + unknown) as f64;
            self.callers[index].iter().for_each(|&caller| next[caller] += each);
            if unknown > 0 {
                match through_tables.iter_mut().find(|(results, _)| *results == plans[index].results) {
                    Some((_, sum)) => *sum += each,
                    None => through_tables.push((plans[index].results, each)),
                }
            }
        }
        for (results, each) in through_tables {
            self.of_unknown[&results].iter().for_each(|&caller| next[caller] += each);
        }
        next
    }
}

/// By node, whether it is on a cycle of a graph or can be reached from one: what is left if nodes that no edge leads to are
/// taken away, as long as there are any.
fn behind_cycles(count: usize, edges: &[(usize, usize)]) -> Vec<bool> {
    let mut leading_to = vec![0; count];
    let mut next: Vec<Vec<usize>> = vec![Vec::new(); count];
    for &(from, to) in edges {
        leading_to[to] += 1;
        next[from].push(to);
    }
    let mut open: Vec<usize> = (0..count).filter(|&node| leading_to[node] == 0).collect();
    let mut is_left = vec![true; count];
    while let Some(node) = open.pop() {
        is_left[node] = false;
        for &to in &next[node] {
            leading_to[to] -= 1;
            if leading_to[to] == 0 {
                open.push(to);
            }
        }
    }
    is_left
}
