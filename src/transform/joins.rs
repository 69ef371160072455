//! Marks the joins of a function's calls, for what follows: the plan, the function, its copy and the verifier.
//!
//! A marker is a call of a function that returns its parameter. It is gone in the end.
//!
//! ```text
//! (local.set $r (call $joined_i32 (local.get $r)))     ;; in front of a statement
//! (call $joined_i32 (block $done (result i32) …))      ;; around a value
//! ```

use crate::analysis::joins::{Join, Point};
use crate::analysis::listing::Listing;
use crate::analysis::regions::Joined;
use crate::ir::{Expr, Module, Type};
use crate::transform::runtime::Runtime;

/// What joined calls return.
const RESULTS: [Type; 5] = [Type::NONE, Type::I32, Type::I64, Type::F32, Type::F64];

/// Adds the functions that markers call.
pub fn add_markers(module: Module<'_>, runtime: &Runtime) {
    let build = module.build();
    for result in RESULTS {
        let body = if result == Type::NONE { build.nop() } else { build.local_get(0, result) };
        module.add_function(&runtime.join_marker(result), result, result, body);
    }
}

/// Puts the markers into a function.
pub fn mark(module: Module<'_>, runtime: &Runtime, listing: &Listing, joins: &[Join]) -> Joined {
    let mut joined = Joined::default();
    let build = module.build();
    // From the last to the first, so that positions in front stay as they are. Values before statements, because these
    // move children.
    let mut order: Vec<&Join> = joins.iter().collect();
    order.sort_by_key(|join| std::cmp::Reverse(join.point));
    for join in order.iter().filter(|join| matches!(join.point, Point::Value(_))) {
        let Point::Value(row) = join.point else { continue };
        let marker = build.call(&runtime.join_marker(join.result), &[listing.node(row).expr()], join.result);
        let parent = listing.parent(row).expect("a value goes somewhere");
        listing.node(parent).expr().set_child(listing.node(row).child, marker);
        note(&mut joined, listing, join, marker);
    }
    for join in order {
        let Point::Statement { block, child, local } = join.point else { continue };
        let name = runtime.join_marker(join.result);
        let (marker, statement) = match local {
            Some(local) => {
                let marker = build.call(&name, &[build.local_get(local, join.result)], join.result);
                (marker, build.local_set(local, marker))
            }
            None if join.result == Type::NONE => {
                let marker = build.call(&name, &[], Type::NONE);
                (marker, marker)
            }
            None => {
                let zero = build.zero(join.result).expect("numbers have a zero");
                let marker = build.call(&name, &[zero], join.result);
                (marker, build.drop(marker))
            }
        };
        listing.node(block).expr().insert_child(child, statement);
        note(&mut joined, listing, join, marker);
    }
    joined
}

fn note(joined: &mut Joined, listing: &Listing, join: &Join, marker: Expr<'_>) {
    joined.markers.insert(marker.address(), join.callee);
    joined.calls.extend(join.calls.iter().map(|&call| (listing.node(call).expr().address(), marker.address())));
}

/// Names of the functions that markers call.
pub fn markers(runtime: &Runtime) -> Vec<String> {
    RESULTS.into_iter().map(|result| runtime.join_marker(result)).collect()
}
