//! Epilogues of functions that store their frames themselves.
//!
//! ```text
//! (block $joined.1                                       ;; where other epilogues go on in this one
//!   (global.set $left_site
//!     (block $epilogue.1 (result i32)                    ;; the site, brought by the test that left
//!       (block $epilogue.0                               ;; a single site is not brought
//!         (return BODY))
//!       (i32.store8 offset=12 (global.get $position) (i32.const SITE))
//!       (i32.store (global.get $position) (local.get $a))
//!       (global.set $position (i32.add (global.get $position) (i32.const 4)))
//!       (br $joined.1)))
//!   (i32.store8 offset=8 (global.get $position) (global.get $left_site)))
//! (i32.store (global.get $position) (local.get $b))
//! (i32.store offset=4 (global.get $position) (local.get $c))
//! (i32.store16 offset=9 (global.get $position) (i32.const FUNCTION))
//! (global.set $position (i32.add (global.get $position) (i32.const 11)))
//! (if (i32.gt_u (global.get $position) (global.get $limit)) (then (return (call $abort_i32))))
//! (i32.const 0)
//! ```
//!
//! How much of a frame is missing is known where it is begun, so the site goes to its place at once.

use crate::abi::State;
use crate::frame::{FrameLayout, slot_size};
use crate::ir::{Expr, Type};
use crate::plan::{Epilogue, InPlace, Retry, Slot};
use crate::transform::FunctionCx;
use crate::transform::references::held_value;

/// Code that runs the body, and stores the frame when a test leaves it: gives what the function returns then. `body` is what
/// [`leave_in_place`](crate::transform::epilogue) made.
pub fn push_frame<'m>(cx: &FunctionCx<'_, 'm>, body: Vec<Expr<'m>>, results: Type) -> Expr<'m> {
    let build = cx.build;
    let mut code = store_frame(cx, body);
    let abort = build.call(&cx.runtime.abort_helper(results), &[], results);
    let abort = match results.is_concrete() {
        true => vec![build.return_(Some(abort))],
        false => vec![abort, build.return_(None)],
    };
    code.push(build.if_(does_not_fit(cx), build.block(None, &abort, Some(Type::UNREACHABLE)), None));
    code.extend(results.is_concrete().then(|| cx.runtime.default_results(build, results)));
    build.block(None, &code, Some(results))
}

/// The same in a resume function: gives whether the frame did not fit, or resumes the function again then and gives what
/// that returns, or else a default.
pub fn push_frame_again<'m>(cx: &FunctionCx<'_, 'm>, body: Vec<Expr<'m>>, again: Option<Expr<'m>>) -> Expr<'m> {
    let build = cx.build;
    let mut code = store_frame(cx, body);
    let abort = build.global_set(cx.runtime.state_global(), build.i32(State::Aborting as u32));
    let results = cx.plan.results;
    let (then, otherwise, type_) = match again.filter(|_| cx.plan.retry == Retry::Call) {
        Some(again) => {
            let retry = build.call(&cx.runtime.retry_helper(results), &[again], results);
            let default = results.is_concrete().then(|| cx.runtime.default_results(build, results));
            (retry, default, results)
        }
        None => (build.i32(1), Some(build.i32(0)), Type::I32),
    };
    let then = build.block(None, &[abort, then], Some(type_));
    code.push(build.if_(does_not_fit(cx), then, otherwise));
    build.block(None, &code, Some(type_))
}

/// Whether the frame that has been stored goes beyond the limit.
fn does_not_fit<'m>(cx: &FunctionCx<'_, 'm>) -> Expr<'m> {
    let pointer = cx.runtime.pointer();
    let limit = cx.build.global_get(&cx.runtime.limit_global(), pointer);
    cx.build.pointer_gt_u(pointer, position(cx), limit)
}

fn position<'m>(cx: &FunctionCx<'_, 'm>) -> Expr<'m> {
    cx.build.global_get(&cx.runtime.position_global(), cx.runtime.pointer())
}

fn move_position<'m>(cx: &FunctionCx<'_, 'm>, bytes: u32) -> Expr<'m> {
    let moved = cx.build.pointer_add(cx.runtime.pointer(), position(cx), u64::from(bytes));
    cx.build.global_set(&cx.runtime.position_global(), moved)
}

fn store<'m>(cx: &FunctionCx<'_, 'm>, bytes: u32, offset: u32, value: Expr<'m>) -> Expr<'m> {
    cx.build.store(&cx.runtime.memory.name, bytes, offset, position(cx), value)
}

/// Stores slots from an offset on; gives the offset behind them.
fn store_slots<'m>(
    cx: &FunctionCx<'_, 'm>,
    slots: impl Iterator<Item = Slot>,
    mut offset: u32,
    code: &mut Vec<Expr<'m>>,
) -> u32 {
    for slot in slots {
        let bytes = slot_size(slot.type_);
        code.push(store(cx, bytes, offset, held_value(cx, slot.local)));
        offset += bytes;
    }
    offset
}

fn own_bytes(epilogue: &Epilogue) -> u32 {
    epilogue.slots.iter().map(|(slot, _)| slot_size(slot.type_)).sum()
}

/// Epilogues, one around the other, and then the header.
fn store_frame<'m>(cx: &FunctionCx<'_, 'm>, body: Vec<Expr<'m>>) -> Vec<Expr<'m>> {
    let build = cx.build;
    let site_bytes = u32::from(cx.plan.landings.len() > 1);
    let always: u32 = cx.plan.always().iter().map(|slot| slot_size(slot.type_)).sum();
    // Bytes in front of the site from each epilogue on.
    let mut before_site = vec![0; cx.epilogues.len()];
    for (index, epilogue) in cx.epilogues.iter().enumerate().rev() {
        before_site[index] = own_bytes(epilogue) + epilogue.next.map_or(always, |next| before_site[next]);
    }
    let mut code = body;
    let mut offset = 0;
    for (index, epilogue) in cx.epilogues.iter().enumerate() {
        if !epilogue.sites.is_empty() {
            let (mut entered, site) = enter(cx, index, code);
            if site_bytes > 0 {
                entered.push(store(cx, 1, before_site[index], site));
            }
            code = entered;
        }
        if is_joined(cx, index) {
            code = vec![build.block(Some(&joined_label(cx, index)), &code, Some(Type::NONE))];
        }
        offset = store_slots(cx, epilogue.slots.iter().map(|(slot, _)| *slot), 0, &mut code);
        if let Some(next) = epilogue.next {
            code.extend((offset > 0).then(|| move_position(cx, offset)));
            code.extend(jumps(cx, index).then(|| build.break_(&joined_label(cx, next), None, None)));
        }
    }
    offset = store_slots(cx, cx.plan.always().iter().copied(), offset, &mut code);
    let function_bytes = function_bytes(cx);
    code.push(store(cx, function_bytes, offset + site_bytes, build.i32(cx.plan.number.0)));
    code.push(move_position(cx, offset + site_bytes + function_bytes));
    code
}

/// The widths of one module's frames depend on how many functions it has.
fn function_bytes(cx: &FunctionCx<'_, '_>) -> u32 {
    FrameLayout::for_functions(cx.runtime.resume_names.len()).function_bytes
}

/// Whether an epilogue has to leave for the one that it goes on in: another is in between, or tests enter there.
fn jumps(cx: &FunctionCx<'_, '_>, index: usize) -> bool {
    let next = cx.epilogues[index].next;
    next.is_some_and(|next| next != index + 1 || !cx.epilogues[next].sites.is_empty())
}

/// Whether others leave for an epilogue.
fn is_joined(cx: &FunctionCx<'_, '_>, index: usize) -> bool {
    (0..index).any(|other| cx.epilogues[other].next == Some(index) && jumps(cx, other))
}

fn joined_label(cx: &FunctionCx<'_, '_>, index: usize) -> String {
    format!("{}joined.{index}", cx.label_prefix)
}

/// The block that tests leave for; and the site, behind it.
fn enter<'m>(cx: &FunctionCx<'_, 'm>, index: usize, code: Vec<Expr<'m>>) -> (Vec<Expr<'m>>, Expr<'m>) {
    let build = cx.build;
    let label = cx.epilogue_label(index);
    let sites = &cx.epilogues[index].sites;
    if let [only] = sites.as_slice() {
        // A test in place has left for its own label, in front of the innermost epilogue.
        let falls_through = index == 0 && cx.plan.landing(*only).test_in_place == Some(InPlace::Carried);
        let left = build.block((!falls_through).then_some(label.as_str()), &code, Some(Type::NONE));
        return (vec![left], build.i32(only.0));
    }
    let left = build.block(Some(&label), &code, Some(Type::I32));
    match cx.site {
        Some(local) => (vec![build.local_set(local, left)], build.local_get(local, Type::I32)),
        None => {
            let global = cx.runtime.left_site_global();
            (vec![build.global_set(&global, left)], build.global_get(&global, Type::I32))
        }
    }
}
