//! Finds landings that share what follows them.
//!
//! ```text
//! (block $done
//!   (if (local.get $c) (then (local.set $r (call $f)) (br $done)))
//!   (local.set $r (call $g)))
//! ;; here both calls have returned into $r, and nothing else has happened
//! ```
//!
//! Calls like these need no tests, sites and epilogues of their own. A callee that is being unwound returns a default
//! value, which goes the same way as any other, up to the point where the ways meet: a *join*. There the state is tested
//! once, and there the resume function goes on, with whatever the resumed callee returns.
//!
//! A call's value is followed into a local, out of blocks and arms, and over unconditional branches out of blocks. It is
//! not followed out of anything that could catch the resumed callee's exception, and not into a local that what catches it
//! may read: there the local has its old value still.
//!
//! In a loop, ways that come by without a call pay for the test in each turn: there must not be more of them than of the
//! calls.
//!
//! A single call is moved in this way if its value leaves a block or an arm: there its test would have to be in place.

use std::cell::LazyCell;
use std::collections::{BTreeMap, HashMap};

use crate::analysis::fork_path::{CallClass, ForkPath};
use crate::analysis::listing::{Listing, Row};
use crate::ir::{Function, Kind, Liveness, Module, Name, Type};
use crate::plan::LocalIndex;

/// Expressions that are looked at to find out from where a point is reached, at most.
const MAX_LOOKS: usize = 1000;

/// Where ways meet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Point {
    /// The expression has the calls' value.
    Value(Row),
    /// In front of a child of a block. The local, if there is one, has the calls' value; else it was dropped.
    Statement { block: Row, child: u32, local: Option<LocalIndex> },
}

/// Calls that go on alike.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Join {
    pub point: Point,
    pub calls: Vec<Row>,
    /// What they return: one number, or nothing.
    pub result: Type,
    /// The function that all of them call directly, if that is one.
    pub callee: Option<u32>,
    /// The expression that ends where they meet.
    end: Row,
}

/// The joins of a function's landings. `liveness` is that of a function that catches exceptions.
pub fn find(
    module: Module<'_>,
    path: &ForkPath,
    function: Function<'_>,
    listing: &Listing,
    liveness: Option<&Liveness>,
) -> Vec<Join> {
    let mut groups: BTreeMap<(Point, Type), Join> = BTreeMap::new();
    for row in listing.rows_in_order().filter(|&row| listing.node(row).is_call()) {
        let node = listing.node(row);
        let result = node.type_();
        let expr = node.expr();
        if !has_marker(result) || expr.is_return_call() || result == function.results() && listing.is_tail_position(row)
        {
            continue;
        }
        let callee = match path.classify(module, expr) {
            CallClass::CannotFork | CallClass::Entry => continue,
            CallClass::Direct(callee) => Some(callee),
            CallClass::Indirect => None,
        };
        let Some((point, end)) = follow(listing, row) else { continue };
        // The call's value is not in the local yet: whoever reads it has caught an exception of the call. Of what cannot be
        // reached it is not known what is read.
        let is_read_when_caught =
            |local| liveness.is_some_and(|live| !live.is_reachable(expr) || live.after(expr).contains(&local));
        if matches!(point, Point::Statement { local: Some(local), .. } if is_read_when_caught(local)) {
            continue;
        }
        let join = groups.entry((point, result)).or_insert(Join { point, calls: Vec::new(), result, callee, end });
        join.calls.push(row);
        join.callee = join.callee.filter(|_| join.callee == callee);
    }
    // Where several groups come to one point, the others would be taken for the first.
    let mut largest: BTreeMap<Point, Join> = BTreeMap::new();
    let branches = LazyCell::new(|| count_branches(function));
    for join in groups.into_values().filter(|join| join.calls.len() > 1 || leaves_block(listing, join.calls[0])) {
        if is_in_loop(listing, join.point) && !is_mostly_reached_by_calls(listing, &branches, &join) {
            continue;
        }
        let place = match join.point {
            Point::Statement { block, child, .. } => Point::Statement { block, child, local: None },
            value => value,
        };
        match largest.get(&place) {
            Some(other) if other.calls.len() >= join.calls.len() => {}
            _ => _ = largest.insert(place, join),
        }
    }
    largest.into_values().collect()
}

/// Whether a function catches exceptions.
pub fn has_handlers(listing: &Listing) -> bool {
    listing.rows_in_order().any(|row| matches!(listing.node(row).kind(), Kind::Try | Kind::TryTable))
}

/// Whether the value of a call is also that of a block or an arm around it.
fn leaves_block(listing: &Listing, call: Row) -> bool {
    let Some(parent) = listing.parent(call) else { return false };
    let is_block = matches!(listing.node(parent).kind(), Kind::Break | Kind::Block | Kind::If);
    is_block && listing.node(call).type_().is_concrete()
}

/// How many branches go to each label.
fn count_branches(function: Function<'_>) -> HashMap<Name, usize> {
    let code = function.code();
    let mut counts = HashMap::new();
    for row in &code.rows {
        let named = matches!(row.kind(), Kind::Break | Kind::BrOn).then(|| row.named()).flatten();
        for label in named.into_iter().chain(code.labels(row)) {
            *counts.entry(label).or_default() += 1;
        }
    }
    counts
}

/// Whether at least half of the ways to where calls meet come from one of them.
fn is_mostly_reached_by_calls(listing: &Listing, branches: &HashMap<Name, usize>, join: &Join) -> bool {
    let mut ends = vec![join.end];
    let mut ways = 0;
    for _ in 0..MAX_LOOKS {
        let Some(row) = ends.pop() else { return ways <= 2 * join.calls.len() };
        let node = listing.node(row);
        match (node.kind(), listing.last_child(row)) {
            (Kind::Block | Kind::Loop, Some(last)) => {
                let label = node.expr().label_name().filter(|_| node.kind() == Kind::Block);
                ways += label.and_then(|label| branches.get(&label)).unwrap_or(&0);
                ends.push(last);
            }
            (Kind::If, _) => {
                let arms = &listing.children(row)[1..];
                ways += 2 - arms.len();
                ends.extend(arms);
            }
            _ => ways += usize::from(node.type_() != Type::UNREACHABLE),
        }
    }
    false
}

/// Whether the point is in a loop. There the test costs time on ways that come by without a call.
fn is_in_loop(listing: &Listing, point: Point) -> bool {
    let (Point::Value(row) | Point::Statement { block: row, .. }) = point;
    listing.loops_around(row) > 0
}

/// Whether values of this type can be followed.
fn has_marker(result: Type) -> bool {
    result == Type::NONE || result.is_numeric() && result.components().len() == 1 && result.keyword() != Some("v128")
}

/// The furthest point that the call's value gets to while nothing else happens, and the expression that ends there;
/// `None` if that is not out of the statement that the call is in.
fn follow(listing: &Listing, call: Row) -> Option<(Point, Row)> {
    let mut at = call;
    while listing.node(at).type_().is_concrete() {
        let parent = listing.parent(at)?;
        let node = listing.node(parent);
        let goes_on = match node.kind() {
            Kind::LocalSet if node.type_() == Type::NONE => {
                return follow_statement(listing, parent, Some(node.local));
            }
            Kind::Drop => return follow_statement(listing, parent, None),
            Kind::Break => jump_target(listing, parent),
            Kind::Block => listing.next_sibling(at).is_none().then_some(parent),
            Kind::If => (listing.node(at).child > 0).then_some(parent),
            Kind::Loop => Some(parent),
            _ => None,
        };
        match goes_on.filter(|&next| listing.node(next).type_().is_concrete()) {
            Some(next) => at = next,
            None => return (at != call).then_some((Point::Value(at), at)),
        }
    }
    if at == call { follow_statement(listing, call, None) } else { None }
}

/// The furthest point that control gets to behind a statement while nothing else happens, and the expression that ends
/// there.
fn follow_statement(listing: &Listing, statement: Row, local: Option<LocalIndex>) -> Option<(Point, Row)> {
    let mut at = statement;
    loop {
        let parent = listing.parent(at)?;
        let is_none = listing.node(parent).type_() == Type::NONE;
        let next = match listing.node(parent).kind() {
            Kind::Block => match listing.next_sibling(at) {
                None => Some(parent).filter(|_| is_none),
                Some(next) => {
                    let target = jump_target(listing, next).filter(|&t| listing.node(t).type_() == Type::NONE);
                    if target.is_none() {
                        let point = Point::Statement { block: parent, child: listing.node(next).child, local };
                        return Some((point, at));
                    }
                    target
                }
            },
            Kind::If if listing.node(at).child > 0 => Some(parent).filter(|_| is_none),
            Kind::Loop => Some(parent).filter(|_| is_none),
            _ => None,
        };
        at = next?;
    }
}

/// The block at whose end an unconditional branch leads, if that is within the same handlers.
fn jump_target(listing: &Listing, row: Row) -> Option<Row> {
    let label = listing.node(row).expr().jump_label()?;
    let mut current = row;
    loop {
        current = listing.parent(current)?;
        let node = listing.node(current);
        match node.kind() {
            Kind::Try | Kind::TryTable => return None,
            Kind::Block if node.expr().label_name() == Some(label) => return Some(current),
            Kind::Loop if node.expr().label_name() == Some(label) => return None,
            _ => {}
        }
    }
}
