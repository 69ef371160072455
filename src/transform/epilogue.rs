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

use crate::frame::{NO_SITE, PUSH_GROUP};
use crate::ir::{Expr, Type};
use crate::plan::{FunctionPlan, InPlace, Site};
use crate::transform::FunctionCx;
use crate::transform::references::held_value;

/// One call of a push helper: values of one type, as locals or components of locals that are tuples.
pub struct PushGroup {
    pub type_: Type,
    /// Whether the mask says for each value if it is pushed.
    pub masked: bool,
    /// Local and, for a tuple, component.
    pub values: Vec<(u32, Option<u32>)>,
}

/// The values of a frame in the order in which they are pushed, grouped for the push helpers.
pub fn push_groups(plan: &FunctionPlan) -> Vec<PushGroup> {
    let mut groups: Vec<PushGroup> = Vec::new();
    for (i, slot) in plan.frame.iter().enumerate() {
        let masked = i >= plan.always;
        let components = slot.type_.components();
        for (i, &type_) in components.iter().enumerate() {
            let component = (components.len() > 1).then_some(i as u32);
            let type_ = type_.in_frame();
            match groups.last_mut() {
                Some(group) if group.type_ == type_ && group.masked == masked && group.values.len() < PUSH_GROUP => {
                    group.values.push((slot.local, component));
                }
                _ => groups.push(PushGroup { type_, masked, values: vec![(slot.local, component)] }),
            }
        }
    }
    groups
}

/// Code that runs the body, and pushes the frame when a test leaves it: gives the site once the frame's locals are
/// pushed. When the body ends normally, the function has returned.
pub fn push_frame<'m>(cx: &FunctionCx<'_, 'm>, body: Expr<'m>) -> Expr<'m> {
    let build = cx.build;
    let mut code = match body.type_() {
        t if t.is_concrete() => vec![build.return_(Some(body))],
        Type::NONE => vec![body, build.return_(None)],
        _ => vec![body],
    };
    let in_place: Vec<Site> = (0..cx.plan.landings.len() as u32)
        .map(Site)
        .filter(|&s| cx.plan.landing(s).test_in_place == Some(InPlace::Carried))
        .collect();
    let single = cx.plan.landings.len() == 1;
    let epilogue = cx.epilogue_label();
    for (i, &site) in in_place.iter().enumerate() {
        let landing = build.block(Some(&cx.in_place_label(site)), &code, Some(cx.plan.landing(site).result));
        code = vec![build.drop(landing)];
        let is_last = i + 1 == in_place.len();
        if single {
            // The only test: nothing leaves for the epilogue's own label.
        } else if is_last {
            code.push(build.i32(site.0));
        } else {
            code.push(build.break_(&epilogue, None, Some(build.i32(site.0))));
        }
    }
    let mut site = if single {
        // A test in place has left for its own label.
        let label = in_place.is_empty().then_some(epilogue.as_str());
        let body = build.block(label, &code, Some(Type::NONE));
        build.block(None, &[body, build.i32(NO_SITE as u32)], Some(Type::I32))
    } else {
        build.block(Some(&epilogue), &code, Some(Type::I32))
    };
    let mut mask_selected = false;
    for group in push_groups(cx.plan) {
        if group.masked && !mask_selected {
            site = cx.select_mask(site);
            mask_selected = true;
        }
        let mut operands = vec![site];
        for &(local, component) in &group.values {
            let value = held_value(cx, local);
            operands.push(component.map_or(value, |i| build.tuple_extract(value, i)));
        }
        site = build.call(&cx.runtime.push_helper(group.type_, group.masked, group.values.len()), &operands, Type::I32);
    }
    site
}

/// Reads a frame's locals back, in the reverse order of [`push_frame`].
pub fn pop_frame<'m>(cx: &FunctionCx<'_, 'm>) -> Vec<Expr<'m>> {
    let build = cx.build;
    let mut code = Vec::new();
    for (i, slot) in cx.plan.frame.iter().enumerate().rev() {
        let masked = i >= cx.plan.always;
        let components = slot.type_.components();
        if components.len() == 1 {
            let type_ = slot.type_.in_frame();
            let popped = build.call(&cx.runtime.pop_helper(type_, masked), &[], type_);
            code.push(build.local_set(slot.local, cx.function.cast(cx.module, popped, slot.type_.nullable())));
            continue;
        }
        // Components are popped last first, and a tuple is made first to last: through variables.
        let mut parts = Vec::new();
        for &type_ in components.iter().rev() {
            let part = cx.function.add_local(type_, "fork.component");
            let in_frame = type_.in_frame();
            let popped = build.call(&cx.runtime.pop_helper(in_frame, masked), &[], in_frame);
            code.push(build.local_set(part, cx.function.cast(cx.module, popped, type_)));
            parts.push(build.local_get(part, type_));
        }
        parts.reverse();
        code.push(build.local_set(slot.local, build.tuple(&parts)));
    }
    code
}
