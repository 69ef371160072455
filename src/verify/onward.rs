//! What a resume function does once its landing has returned, beside what the function does there: it must be the same.
//!
//! Both are followed at once, with the state NORMAL, from behind the landing on. Each is executed on values that have only
//! names, up to its next *turn*: an operation that can be noticed, or a choice of the way by what is not known. Turns
//! must be equal, and so must be what they are made of. Then both go on behind them, each way.
//!
//! ```text
//! function                                 resume function, once it is resumed            the same in both
//!                                                                                         what $g returned, locals 0, 2
//! (local.set 1 (… what $g returned))       (local.set 1 (… what $g returned))             and local 1
//! (call $h (local.get 1))                  (if (global.get $state)                        turn: the call, of the same
//!                                            (then (call $h.resume))
//!                                            (else (call $h (local.get 1))))
//! (br_if $done (local.get 0))              (br_if $done (local.get 0))                    turn: the choice, by the same
//! ```
//!
//! Between turns of a pair of places counts only which locals and which entries of the stack are the same in both. A pair
//! that is reached again with fewer of those is followed again. A local that a frame does not hold is the same in both
//! only once it has been set: so frames that lack what is needed show, too.
//!
//! Operands that were computed before the landing, in its statement, are taken for the same: [`check`](super::check)
//! compares them.

mod same;
mod walk;

use std::collections::{BTreeMap, HashMap};

use crate::plan::Site;
use crate::verify::body::{Body, Place};
use crate::verify::violation::Problem;
use crate::verify::world::World;
use same::{Same, Side, Term};
use walk::{Follower, Way};

/// A place of the function, and one of its resume function.
type Pair = [u32; 2];

/// Where a landing has returned: in the function, and in its resume function.
pub struct Returned {
    pub site: Site,
    pub places: Pair,
    /// Entries of the stack, the landing's result included.
    pub height: u32,
    /// Whether the landing gives a result.
    pub gives: bool,
    /// For each local that both have, whether the resume function has it again.
    pub reloaded: Vec<bool>,
}

/// A call that both come to.
pub struct Called {
    /// The function's.
    pub row: u32,
    /// Behind the resume function's, without the result.
    pub after: Place,
}

/// Follows both functions from where landings have returned. Gives the calls that they come to. A failure is the site's that
/// led there.
pub fn follow(
    world: &World<'_>,
    function: &Body,
    resume: &Body,
    locals: usize,
    returned: &[&Returned],
) -> Result<Vec<Called>, (Site, Problem)> {
    let [own, other] = [function, resume];
    let mut called = BTreeMap::new();
    let mut followers = [Follower::new(world, function, Side::Function), Follower::new(world, resume, Side::Resume)];
    let mut found: HashMap<Pair, (Same, Site)> = HashMap::new();
    let mut open = Vec::new();
    for start in returned {
        let mut same = Same::new(locals, start.height);
        for (local, &is_reloaded) in (0..).zip(&start.reloaded) {
            same.set_local(local, is_reloaded);
        }
        // The resumed callee can throw, too.
        let calls = start.places.map(|at| at - 1);
        let before = start.height as usize - usize::from(start.gives);
        let stack: Vec<Term> = (0..before as u32).map(Term::Entry).collect();
        let thrown = [0, 1].map(|i| followers[i].thrown(calls[i], &stack));
        let address = resume.row(resume.instructions[calls[1] as usize].row).expression;
        let reached = pair_up(&thrown, &[HashMap::new(), HashMap::new()], &same)
            .ok_or((start.site, Problem::GoesOnOtherwise(address)))?;
        for (places, same) in reached.into_iter().chain([(start.places, same)]) {
            note(&mut found, &mut open, places, same, start.site)
                .ok_or((start.site, Problem::GoesOnOtherwise(address)))?;
        }
    }
    while let Some(places) = open.pop() {
        let (same, site) = found[&places].clone();
        let [function, resume] = [0, 1].map(|i| followers[i].turn(places[i], &same));
        let address = other.row(resume.row).expression;
        let otherwise = || (site, Problem::GoesOnOtherwise(address));
        if function.what != resume.what || function.operands.len() != resume.operands.len() {
            return Err(otherwise());
        }
        if function.operands != resume.operands {
            return Err((site, Problem::GoesOnWithOther(address)));
        }
        if let (Some(_), [way]) = (own.calls.get(&function.row), resume.ways.as_slice()) {
            let result = u32::from(own.row(function.row).type_().is_concrete());
            let after = Place { at: way.at, height: way.stack.len() as u32 - result };
            called.insert([function.row, way.at], Called { row: function.row, after });
        }
        let locals = [function.locals, resume.locals];
        for ways in [[function.ways, resume.ways], [function.thrown, resume.thrown]] {
            for (places, same) in pair_up(&ways, &locals, &same).ok_or_else(otherwise)? {
                note(&mut found, &mut open, places, same, site).ok_or_else(otherwise)?;
            }
        }
    }
    Ok(called.into_values().collect())
}

/// Where both go on together, with what is the same there. `None` if they do not.
fn pair_up(ways: &[Vec<Way>; 2], locals: &[HashMap<u32, Term>; 2], before: &Same) -> Option<Vec<(Pair, Same)>> {
    let [function, resume] = ways;
    if function.len() != resume.len() {
        return None;
    }
    let mut after = before.clone();
    let value = |side: Side, set: &HashMap<u32, Term>, local: u32| {
        set.get(&local).copied().unwrap_or_else(|| before.value(side, local))
    };
    for &local in locals[0].keys().chain(locals[1].keys()) {
        let is_same = value(Side::Function, &locals[0], local) == value(Side::Resume, &locals[1], local);
        after.set_local(local, is_same);
    }
    let together = |(function, resume): (&Way, &Way)| {
        Some(([function.at, resume.at], after.with_stacks(&function.stack, &resume.stack)?))
    };
    function.iter().zip(resume).map(together).collect()
}

/// Notes that a pair of places is reached. `None` if that was with another stack before.
fn note(
    found: &mut HashMap<Pair, (Same, Site)>,
    open: &mut Vec<Pair>,
    places: Pair,
    same: Same,
    site: Site,
) -> Option<()> {
    match found.get_mut(&places) {
        Some((known, _)) => {
            if known.meet(&same)? {
                open.push(places);
            }
        }
        None => {
            found.insert(places, (same, site));
            open.push(places);
        }
    }
    Some(())
}
