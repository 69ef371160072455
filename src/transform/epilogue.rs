//! Where tests go when the state is not normal: the frame is pushed and a default value is returned.
//!
//! ```text
//! (call $finish
//!   (call $push_i32x2                 ;; gives the site on
//!     (block $epilogue (result i32)   ;; the site, brought by the test that left
//!       (drop
//!         (block $landing.0 (result i64)   ;; a test in place, that brings the callee's value
//!           …
//!           (return BODY)))
//!       (i32.const 0))
//!     (local.get $a) (local.get $b))
//!   (i32.const FUNCTION))
//! ```
//!
//! In a resume function, what ends the frame also takes its last values. V8 optimises functions that end frames so more
//! slowly.

use crate::frame::{NO_SITE, POP_GROUPS};
use crate::ir::{Expr, Type};
use crate::plan::{Epilogue, FunctionPlan, InPlace, Retry, Site, Slot};
use crate::transform::FunctionCx;
use crate::transform::in_line;
use crate::transform::references::held_value;

/// What a push helper takes or a pop helper gives: a type, whether the mask says for each value if the frame holds it,
/// and how many values.
pub type GroupKind = (Type, bool, usize);

/// What ends the frame of a resume function: takes a last group, if there is one, and gives whether the frame did not
/// fit; or resumes the function again then, and gives what that returns, or else a default value of these results.
pub type EndKind = (Option<GroupKind>, Option<Type>);

/// One call of a push helper: values of one type, as locals or components of locals that are tuples.
pub struct PushGroup {
    type_: Type,
    masked: bool,
    /// Local and, for a tuple, component.
    values: Vec<(u32, Option<u32>)>,
}

impl PushGroup {
    pub fn kind(&self) -> GroupKind {
        (self.type_, self.masked, self.values.len())
    }
}

/// Values of a frame in the order in which they are pushed, grouped for the push helpers.
fn group(slots: impl Iterator<Item = (Slot, bool)>, most: usize) -> Vec<PushGroup> {
    let mut groups: Vec<PushGroup> = Vec::new();
    for (slot, masked) in slots {
        let components = slot.type_.components();
        for (i, &type_) in components.iter().enumerate() {
            let component = (components.len() > 1).then_some(i as u32);
            let type_ = type_.in_frame();
            match groups.last_mut() {
                Some(group) if group.type_ == type_ && group.masked == masked && group.values.len() < most => {
                    group.values.push((slot.local, component));
                }
                _ => groups.push(PushGroup { type_, masked, values: vec![(slot.local, component)] }),
            }
        }
    }
    groups
}

/// The groups of an epilogue.
fn epilogue_groups(epilogue: &Epilogue, most: usize) -> Vec<PushGroup> {
    group(epilogue.slots.iter().copied(), most)
}

/// Groups, the last one apart if a helper is to take it that ends the frame, too.
type Groups = (Vec<PushGroup>, Option<PushGroup>);

/// Splits the last group off if it has at most so many values. Numbers as large as pointers are most of what is always
/// saved, and for others such helpers are larger than what they spare.
fn split_last(mut groups: Vec<PushGroup>, pointer: Type, most: usize) -> Groups {
    let last = groups.pop_if(|group| group.type_ == pointer && !group.masked && group.values.len() <= most);
    (groups, last)
}

/// The groups that all epilogues of a function go on with.
fn always_groups(plan: &FunctionPlan) -> Vec<PushGroup> {
    group(plan.always().iter().map(|&slot| (slot, false)), plan.push_group)
}

/// All groups of a function.
pub fn push_groups_of(plan: &FunctionPlan) -> Vec<PushGroup> {
    let groups = plan.epilogues.iter().flat_map(|epilogue| epilogue_groups(epilogue, plan.push_group));
    groups.chain(always_groups(plan)).collect()
}

/// All groups of its resume function.
pub fn push_groups_of_resume(plan: &FunctionPlan, pointer: Type) -> Groups {
    let slots = plan.sometimes().iter().map(|&slot| (slot, true));
    let slots = slots.chain(plan.always().iter().map(|&slot| (slot, false)));
    split_last(group(slots, plan.resume_push_group), pointer, plan.resume_last_group)
}

/// Code that runs the body, and pushes the frame when a test leaves it: gives what the function returns then. When the
/// body ends normally, the function has returned.
pub fn push_frame<'m>(cx: &FunctionCx<'_, 'm>, body: Expr<'m>, results: Type) -> Expr<'m> {
    if cx.plan.in_line {
        return in_line::push_frame(cx, leave_in_place(cx, body), results);
    }
    let site = push_sometimes(cx, leave_in_place(cx, body));
    let site = push(cx, always_groups(cx.plan), site);
    cx.build.call(&cx.runtime.finish_helper(results), &[site, cx.build.i32(cx.plan.number.0)], results)
}

/// The same in a resume function, given whether it was resumed again by what ends it, if that matters. Gives what
/// [`EndKind`] says.
pub fn push_frame_again<'m>(cx: &FunctionCx<'_, 'm>, body: Expr<'m>, again: Option<Expr<'m>>) -> Expr<'m> {
    if cx.plan.in_line {
        return in_line::push_frame_again(cx, leave_in_place(cx, body), again);
    }
    let mut site = enter_epilogue(cx, 0, &leave_in_place(cx, body));
    if let Some(masks) = cx.plan.masks {
        site = cx.select_mask(site, masks);
    }
    let (groups, last) = push_groups_of_resume(cx.plan, cx.runtime.pointer());
    let kind = end_of(cx.plan, last.as_ref());
    let mut operands = vec![push(cx, groups, site)];
    operands.extend(last.iter().flat_map(|group| values(cx, group)));
    operands.push(cx.build.i32(cx.plan.number.0));
    operands.extend(again.filter(|_| kind.1.is_some()));
    cx.build.call(&cx.runtime.finish_again_helper(kind), &operands, kind.1.unwrap_or(Type::I32))
}

/// How the frame of a resume function ends.
pub fn end_of(plan: &FunctionPlan, last: Option<&PushGroup>) -> EndKind {
    let retries = plan.retry == Retry::Call && !plan.results.has_reference();
    (last.map(PushGroup::kind), retries.then_some(plan.results))
}

/// The body, and the blocks of tests in place, which bring the callee's value.
fn leave_in_place<'m>(cx: &FunctionCx<'_, 'm>, body: Expr<'m>) -> Vec<Expr<'m>> {
    let build = cx.build;
    let mut code = match body.type_() {
        t if t.is_concrete() => vec![build.return_(Some(body))],
        Type::NONE => vec![body, build.return_(None)],
        _ => vec![body],
    };
    let is_in_place = |&site: &Site| cx.plan.landing(site).test_in_place == Some(InPlace::Carried);
    let mut in_place: Vec<Site> = cx.plan.sites().filter(is_in_place).collect();
    // The last one, if it can, falls through to the innermost epilogue.
    in_place.sort_by_key(|&site| cx.epilogue_of(site) == 0);
    for (i, &site) in in_place.iter().enumerate() {
        let landing = build.block(Some(&cx.in_place_label(site)), &code, Some(cx.plan.landing(site).result));
        code = vec![build.drop(landing)];
        let epilogue = cx.epilogue_of(site);
        if i + 1 == in_place.len() && epilogue == 0 {
            code.extend(cx.brought_site(site));
        } else {
            code.push(build.break_(&cx.epilogue_label(epilogue), None, cx.brought_site(site)));
        }
    }
    code
}

/// The epilogues, one around the other: each pushes its slots and goes on in a later one.
fn push_sometimes<'m>(cx: &FunctionCx<'_, 'm>, mut code: Vec<Expr<'m>>) -> Expr<'m> {
    let build = cx.build;
    let last = cx.epilogues.len() - 1;
    for (index, epilogue) in cx.epilogues.iter().enumerate() {
        let mut site = enter_epilogue(cx, index, &code);
        if let Some(masks) = epilogue.masks {
            site = cx.select_mask(site, masks);
        }
        site = push(cx, epilogue_groups(epilogue, cx.plan.push_group), site);
        code = match epilogue.next {
            None => {
                debug_assert_eq!(index, last);
                vec![site]
            }
            Some(next) if next == index + 1 => vec![site],
            Some(next) => vec![build.break_(&cx.epilogue_label(next), None, Some(site))],
        };
    }
    code[0]
}

/// The block that tests leave for the epilogue, which gives the site.
fn enter_epilogue<'m>(cx: &FunctionCx<'_, 'm>, index: usize, code: &[Expr<'m>]) -> Expr<'m> {
    let build = cx.build;
    let label = cx.epilogue_label(index);
    if !cx.single[index] {
        return build.block(Some(&label), code, Some(Type::I32));
    }
    let only = cx.epilogues[index].sites[0];
    // A test in place has left for its own label, in front of the innermost epilogue.
    let falls_through = index == 0 && cx.plan.landing(only).test_in_place == Some(InPlace::Carried);
    let left = build.block((!falls_through).then_some(label.as_str()), code, Some(Type::NONE));
    let site = if cx.plan.landings.len() == 1 { NO_SITE as u32 } else { only.0 };
    build.block(None, &[left, build.i32(site)], Some(Type::I32))
}

/// Pushes groups; gives the site on.
fn push<'m>(cx: &FunctionCx<'_, 'm>, groups: Vec<PushGroup>, mut site: Expr<'m>) -> Expr<'m> {
    for group in groups {
        let mut operands = vec![site];
        operands.extend(values(cx, &group));
        site = cx.build.call(&cx.runtime.push_helper(group.kind()), &operands, Type::I32);
    }
    site
}

fn values<'m>(cx: &FunctionCx<'_, 'm>, group: &PushGroup) -> impl Iterator<Item = Expr<'m>> {
    group.values.iter().map(|&(local, component)| {
        let value = held_value(cx, local);
        component.map_or(value, |i| cx.build.tuple_extract(value, i))
    })
}

/// One call of a pop helper.
pub struct PopGroup {
    pub masked: bool,
    /// In the order in which they are popped. A single one is a value of the helper's; several are in globals.
    pub slots: Vec<Slot>,
    /// How many the helper pops. Behind the last that the mask can hold it finds none.
    pub size: usize,
}

/// Slots in the order in which they are popped, grouped for the pop helpers.
pub fn pop_groups(plan: &FunctionPlan) -> Vec<PopGroup> {
    let in_a_group = |a: &Slot, b: &Slot| a.type_ == b.type_ && a.type_.is_numeric();
    let mut groups = Vec::new();
    for (slots, masked) in [(plan.always(), false), (plan.sometimes(), true)] {
        let order: Vec<Slot> = slots.iter().rev().copied().collect();
        let runs: Vec<&[Slot]> = order.chunk_by(in_a_group).collect();
        for (i, &run) in runs.iter().enumerate() {
            let is_last = masked && i + 1 == runs.len() && run[0].type_.is_numeric();
            let mut rest = run;
            while !rest.is_empty() {
                let exact = POP_GROUPS.iter().copied().find(|&size| size <= rest.len()).expect("there is one of 1");
                let size = match POP_GROUPS.iter().rev().copied().find(|&size| size >= rest.len()) {
                    Some(larger) if is_last => larger,
                    _ => exact,
                };
                let (slots, others) = rest.split_at(size.min(rest.len()));
                groups.push(PopGroup { masked, slots: slots.to_vec(), size });
                rest = others;
            }
        }
    }
    groups
}

/// Reads a frame's locals back with helpers, in the reverse order of [`push_frame`]. A numeric local that the frame does
/// not hold gets some value.
pub fn pop_frame<'m>(cx: &FunctionCx<'_, 'm>) -> Vec<Expr<'m>> {
    let build = cx.build;
    let mut code = Vec::new();
    for group in pop_groups(cx.plan) {
        if group.size == 1 {
            code.push(pop_slot(cx, &group.slots[0], group.masked));
            continue;
        }
        let type_ = group.slots[0].type_;
        code.push(build.call(&cx.runtime.pop_helper((type_, group.masked, group.size)), &[], Type::NONE));
        for (i, slot) in group.slots.iter().enumerate() {
            code.push(build.local_set(slot.local, build.global_get(&cx.runtime.popped_global(type_, i), type_)));
        }
    }
    code
}

fn pop_slot<'m>(cx: &FunctionCx<'_, 'm>, slot: &Slot, masked: bool) -> Expr<'m> {
    let build = cx.build;
    let components = slot.type_.components();
    if components.len() == 1 {
        let type_ = slot.type_.in_frame();
        let popped = build.call(&cx.runtime.pop_helper((type_, masked, 1)), &[], type_);
        return build.local_set(slot.local, cx.function.cast(cx.module, popped, slot.type_.nullable()));
    }
    // Components are popped last first, and a tuple is made first to last: through variables.
    let (mut code, mut parts) = (Vec::new(), Vec::new());
    for &type_ in components.iter().rev() {
        let part = cx.function.add_local(type_, "fork.component");
        let in_frame = type_.in_frame();
        let popped = build.call(&cx.runtime.pop_helper((in_frame, masked, 1)), &[], in_frame);
        code.push(build.local_set(part, cx.function.cast(cx.module, popped, type_)));
        parts.push(build.local_get(part, type_));
    }
    parts.reverse();
    code.push(build.local_set(slot.local, build.tuple(&parts)));
    build.block(None, &code, Some(Type::NONE))
}
