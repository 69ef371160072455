//! Epilogues of functions that store their frames themselves, and how their resume functions load them.
//!
//! The epilogues:
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
//!
//! The start of the resume function, whose parts go on in each other in the same way. Where all frames hold the same there is
//! only the first part. A local of the resume function is where it has come to, in its epilogues, too; engines find it sooner
//! than a global that is imported.
//!
//! ```text
//! (global.set $position (local.tee $place (i32.sub (global.get $position) (i32.const 11))))
//! (local.set $b (i32.load (local.get $place)))
//! (local.set $c (i32.load offset=4 (local.get $place)))
//! (block $popped
//!   (block $join.1
//!     (block $kind.1
//!       (block $kind.0
//!         (br_table $kind.0 $kind.1 $popped                ;; this one's frame holds nothing else
//!           (local.tee $site (i32.load8_u offset=8 (local.get $place)))))
//!       (global.set $position (local.tee $place (i32.sub (local.get $place) (i32.const 8))))
//!       (local.set $a (i32.load (local.get $place)))
//!       (local.set $place (i32.add (local.get $place) (i32.const 4)))
//!       (br $join.1))
//!     (global.set $position (local.tee $place (i32.sub (local.get $place) (i32.const 4)))))
//!   (local.set $d (i32.load (local.get $place))))
//! ```

use crate::abi::State;
use crate::frame::{site_bytes_in_line, slot_size};
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
    cx.build.pointer_gt_u(pointer, place(cx), limit)
}

fn position<'m>(cx: &FunctionCx<'_, 'm>) -> Expr<'m> {
    cx.build.global_get(&cx.runtime.position_global(), cx.runtime.pointer())
}

/// Where the code has come to in the buffer.
fn place<'m>(cx: &FunctionCx<'_, 'm>) -> Expr<'m> {
    cx.place.map_or_else(|| position(cx), |local| cx.build.local_get(local, cx.runtime.pointer()))
}

/// What the position is, to begin with.
fn begin<'m>(cx: &FunctionCx<'_, 'm>) -> Expr<'m> {
    cx.place.map_or_else(|| position(cx), |local| cx.build.local_tee(local, position(cx), cx.runtime.pointer()))
}

/// A place and so many bytes more.
fn moved<'m>(cx: &FunctionCx<'_, 'm>, from: Expr<'m>, bytes: i64) -> Expr<'m> {
    cx.build.pointer_add(cx.runtime.pointer(), from, bytes as u64)
}

/// Goes on to so many bytes behind.
fn move_place<'m>(cx: &FunctionCx<'_, 'm>, bytes: i64) -> Expr<'m> {
    match cx.place {
        Some(local) => cx.build.local_set(local, moved(cx, place(cx), bytes)),
        None => move_position(cx, place(cx), bytes),
    }
}

/// The same, given where it has come to; and that is the position.
fn move_position<'m>(cx: &FunctionCx<'_, 'm>, from: Expr<'m>, bytes: i64) -> Expr<'m> {
    let to = moved(cx, from, bytes);
    let to = cx.place.map_or(to, |local| cx.build.local_tee(local, to, cx.runtime.pointer()));
    cx.build.global_set(&cx.runtime.position_global(), to)
}

fn store<'m>(cx: &FunctionCx<'_, 'm>, bytes: u32, offset: u32, value: Expr<'m>) -> Expr<'m> {
    store_at(cx, place(cx), bytes, offset, value)
}

fn store_at<'m>(cx: &FunctionCx<'_, 'm>, place: Expr<'m>, bytes: u32, offset: u32, value: Expr<'m>) -> Expr<'m> {
    cx.build.store(&cx.runtime.memory.name, bytes, offset, place, value)
}

/// Stores slots from an offset on; gives the offset behind them.
fn store_slots<'a, 'm>(
    cx: &FunctionCx<'_, 'm>,
    slots: impl Iterator<Item = &'a Slot>,
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

fn bytes_of<'a>(slots: impl Iterator<Item = &'a Slot>) -> u32 {
    slots.map(|slot| slot_size(slot.type_)).sum()
}

fn own_slots(epilogue: &Epilogue) -> impl Iterator<Item = &Slot> {
    epilogue.slots.iter().map(|(slot, _)| slot)
}

fn always_bytes(cx: &FunctionCx<'_, '_>) -> u32 {
    bytes_of(cx.plan.always().iter())
}

fn site_bytes(cx: &FunctionCx<'_, '_>) -> u32 {
    site_bytes_in_line(cx.plan)
}

/// By epilogue, the bytes of the slots that it stores, and that those store which it goes on in.
fn sometimes_bytes(cx: &FunctionCx<'_, '_>) -> Vec<u32> {
    let mut bytes = vec![0; cx.epilogues.len()];
    for (index, epilogue) in cx.epilogues.iter().enumerate().rev() {
        bytes[index] = bytes_of(own_slots(epilogue)) + epilogue.next.map_or(0, |next| bytes[next]);
    }
    bytes
}

/// Epilogues, one around the other, and then the header.
fn store_frame<'m>(cx: &FunctionCx<'_, 'm>, body: Vec<Expr<'m>>) -> Vec<Expr<'m>> {
    let build = cx.build;
    let site_bytes = site_bytes(cx);
    // Bytes in front of the site from each epilogue on.
    let always = always_bytes(cx);
    let before_site: Vec<u32> = sometimes_bytes(cx).iter().map(|bytes| bytes + always).collect();
    let mut code = body;
    let mut offset = 0;
    for (index, epilogue) in cx.epilogues.iter().enumerate() {
        if !epilogue.sites.is_empty() {
            let (mut entered, site) = enter(cx, index, code);
            if site_bytes > 0 {
                entered.push(store_at(cx, begin(cx), site_bytes, before_site[index], site));
            } else {
                entered.extend(cx.place.map(|local| build.local_set(local, position(cx))));
            }
            code = entered;
        }
        if is_joined(cx, index) {
            code = vec![build.block(Some(&numbered_label(cx, "joined", index)), &code, Some(Type::NONE))];
        }
        offset = store_slots(cx, own_slots(epilogue), 0, &mut code);
        if let Some(next) = epilogue.next {
            code.extend((offset > 0).then(|| move_place(cx, i64::from(offset))));
            code.extend(jumps(cx, index).then(|| build.break_(&numbered_label(cx, "joined", next), None, None)));
        }
    }
    offset = store_slots(cx, cx.plan.always().iter(), offset, &mut code);
    let function_bytes = cx.runtime.function_bytes();
    code.push(store(cx, function_bytes, offset + site_bytes, build.i32(cx.plan.number.0)));
    code.push(move_position(cx, place(cx), i64::from(offset + site_bytes + function_bytes)));
    code
}

/// Loads the frame's locals, and the site, and moves the position back.
pub fn pop_frame<'m>(cx: &FunctionCx<'_, 'm>) -> Vec<Expr<'m>> {
    let mut code: Vec<Expr<'m>> = cx.runtime.guard_resume(cx.build).into_iter().collect();
    if cx.plan.retry == Retry::Call {
        // What is resumed next was not resumed again.
        code.push(cx.build.global_set(&cx.runtime.retried_global(), cx.build.i32(0)));
    }
    let header = site_bytes(cx) + cx.runtime.function_bytes();
    let kinds: Vec<usize> = cx.plan.kinds_of_frames().collect();
    // A frame of the only kind has all slots.
    let slots = if kinds.len() == 1 { cx.plan.frame.as_slice() } else { cx.plan.always() };
    let bytes = bytes_of(slots.iter());
    code.push(move_position(cx, position(cx), -i64::from(bytes + header)));
    load_slots(cx, slots.iter(), &mut code);
    if let Some(local) = cx.site {
        let site = cx.build.load(&cx.runtime.memory.name, site_bytes(cx), bytes, place(cx), Type::I32);
        match kinds.len() {
            1 => code.push(cx.build.local_set(local, site)),
            _ => code.push(load_sometimes(cx, &kinds, cx.build.local_tee(local, site, Type::I32))),
        }
    }
    code
}

/// Loads what only some frames hold, given the site.
fn load_sometimes<'m>(cx: &FunctionCx<'_, 'm>, kinds: &[usize], site: Expr<'m>) -> Expr<'m> {
    let build = cx.build;
    let popped = numbered_label(cx, "popped", 0);
    let bytes = sometimes_bytes(cx);
    let of_kind = |site| match cx.epilogue_of(site) {
        kind if bytes[kind] == 0 => popped.clone(),
        kind => numbered_label(cx, "kind", kind),
    };
    let labels: Vec<String> = cx.plan.sites().map(of_kind).collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let (last, others) = labels.split_last().expect("it has several sites");
    let mut code = vec![build.switch(others, last, site)];
    let parts: Vec<usize> = (0..cx.epilogues.len()).filter(|&index| bytes[index] > 0).collect();
    for &index in &parts {
        let epilogue = &cx.epilogues[index];
        if kinds.contains(&index) {
            let kind = build.block(Some(&numbered_label(cx, "kind", index)), &code, Some(Type::NONE));
            code = vec![kind, move_position(cx, place(cx), -i64::from(bytes[index]))];
        }
        if is_joined(cx, index) {
            code = vec![build.block(Some(&numbered_label(cx, "join", index)), &code, Some(Type::NONE))];
        }
        load_slots(cx, own_slots(epilogue), &mut code);
        match epilogue.next.filter(|&next| bytes[next] > 0) {
            Some(next) => {
                code.push(move_place(cx, i64::from(bytes[index] - bytes[next])));
                code.extend(jumps(cx, index).then(|| build.break_(&numbered_label(cx, "join", next), None, None)));
            }
            None => code.extend((Some(&index) != parts.last()).then(|| build.break_(&popped, None, None))),
        }
    }
    build.block(Some(&popped), &code, Some(Type::NONE))
}

/// Loads slots from where the code has come to.
fn load_slots<'a, 'm>(cx: &FunctionCx<'_, 'm>, slots: impl Iterator<Item = &'a Slot>, code: &mut Vec<Expr<'m>>) {
    let mut offset = 0;
    for slot in slots {
        let bytes = slot_size(slot.type_);
        let value = cx.build.load(&cx.runtime.memory.name, bytes, offset, place(cx), slot.type_);
        code.push(cx.build.local_set(slot.local, value));
        offset += bytes;
    }
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

fn numbered_label(cx: &FunctionCx<'_, '_>, name: &str, index: usize) -> String {
    format!("{}{name}.{index}", cx.label_prefix)
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
