//! The resume function: pops a frame, goes straight to the landing, and runs the rest of that one activation.
//!
//! ```text
//! (func $f.resume (result i32) (local …all of $f's…) (local $site i32) (local $again i32)
//!   (local.set $again (global.get $retried))
//!   (local.set $site (call $pop_header))
//!   (local.set $b (call $pop_i32))              ;; the frame, in reverse
//!   (call $finish_or_retry_i32x1_i32            ;; gives a default value; if the frame did not fit, it is resumed again
//!     (… push the frame, as in $f, around BODY) (local.get $a) (i32.const FUNCTION) (local.get $again)))
//! ```
//!
//! Where the plan says so, there is a loop around all this instead, and a branch back if the frame did not fit.
//!
//! Each region is rewritten for how it can be entered ([`Entry`]): code that no landing reaches is dropped where a
//! region is only entered by rewinding, and put behind a test where it can be entered normally as well, which is in
//! loops and after any landing. Where the region has such a test anyway (a landing chooses between resuming and
//! calling, a condition between being forced and evaluated), the code before it goes there: its *lead-in*.

mod choice;

use crate::abi::State;
use crate::ir::{Builder, Expr, Function, Module, Type};
use crate::plan::{Callee, CarriedOperand, Carry, FunctionPlan, Masks, Region, RegionId, RegionKind, Retry, Site};
use crate::transform::FunctionCx;
use crate::transform::epilogue::{pop_frame, push_frame_again};
use crate::transform::in_line;
use crate::transform::references;
use crate::transform::runtime::Runtime;
use choice::{Onward, passes_on, takes_lead_in};

/// How control can come into a region of a resume function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Entry {
    /// Only on the way to a landing inside.
    Rewinding,
    /// On the way to a landing inside, or normally; the state tells.
    Any,
}

/// Writes the resume function of `original`, whose body must still be as it was, and gets its captures.
pub fn write<'m>(
    module: Module<'m>,
    original: Function<'m>,
    resume: Function<'m>,
    plan: &FunctionPlan,
    runtime: &Runtime,
) {
    let Some(root) = plan.root else { return };
    let references = references::replays(module, original, plan);
    references::keep_captures(module, original, plan);
    for &type_ in &plan.spills {
        resume.add_local(type_, "fork.operand");
    }
    let site = (plan.landings.len() > 1).then(|| resume.add_local(Type::I32, "fork.site"));
    let place = plan.loads_in_line.then(|| resume.add_local(runtime.pointer(), "fork.place"));
    let cx = FunctionCx { site, place, ..FunctionCx::resume(module, original, resume, plan, runtime) };
    let mut rewriter = Rewriter { cx, original, onward: Vec::new() };
    let body = rewriter.rewrite(root, original.body(), Entry::Rewinding, Vec::new());
    body.finalize();

    let again = (plan.retry == Retry::Call).then(|| resume.add_local(Type::I32, "fork.again"));
    let start = rewriter.cx.new_label("again");
    let cx = &rewriter.cx;
    let build = cx.build;
    let mut code = Vec::new();
    if let Some(again) = again {
        code.push(build.local_set(again, build.global_get(&runtime.retried_global(), Type::I32)));
    }
    if plan.loads_in_line {
        code.extend(in_line::pop_frame(cx));
    } else {
        code.extend(pop_with_helpers(cx));
    }
    code.extend(references::rebuild(cx, &references, site));
    let results = plan.results;
    let end = push_frame_again(cx, body, again.map(|local| build.local_get(local, Type::I32)));
    let default = || results.is_concrete().then(|| runtime.default_results(build, results));
    if let Some(again) = again {
        // What gives references has no name in the text of the helpers.
        let end = if results.has_reference() {
            let again = build.local_get(again, Type::I32);
            build.if_(end, build.call(&runtime.retry_helper(results), &[again], results.top()), default())
        } else {
            end
        };
        code.push(end);
        resume.set_body(build.block(None, &code, Some(results.top())));
    } else {
        code.push(build.break_(&start, Some(end), None));
        code.extend(default());
        resume.set_body(build.loop_(&start, build.block(None, &code, Some(results.top()))));
    }
    references::relax(module, resume, plan);
    resume.refinalize(module);
}

/// Reads the header and the frame's locals back.
fn pop_with_helpers<'m>(cx: &FunctionCx<'_, 'm>) -> Vec<Expr<'m>> {
    let (build, plan, runtime) = (cx.build, cx.plan, cx.runtime);
    let mut code = Vec::new();
    if runtime.asserts {
        let number = build.i32(plan.number.0);
        code.push(build.call(&runtime.check_frame_helper(), &[number], Type::NONE));
    }
    code.push(match (cx.site, plan.masks) {
        (None, _) => build.call(&runtime.pop_function_helper(), &[], Type::NONE),
        (Some(site), None) => build.local_set(site, build.call(&runtime.pop_header_helper(), &[], Type::I32)),
        (Some(site), Some(Masks::Packed(masks, bits))) => {
            let helper = runtime.pop_packed_helper();
            build.local_set(site, build.call(&helper, &[build.i64(masks), build.i32(bits)], Type::I32))
        }
        (Some(site), Some(Masks::Function(number, _))) => {
            let header = build.call(&runtime.pop_header_helper(), &[], Type::I32);
            let site = build.local_tee(site, header, Type::I32);
            build.global_set(&runtime.popped_mask(), build.call(&runtime.mask_function(number), &[site], Type::I64))
        }
    });
    code.extend(pop_frame(cx));
    code
}

/// Makes code of the resume function out of code of the original, which stays as it is: what is dropped is never copied.
struct Rewriter<'a, 'm> {
    cx: FunctionCx<'a, 'm>,
    original: Function<'m>,
    /// Where sites beyond the region that is rewritten next go on, the farthest first: that is decided in front of it, or
    /// inside of it.
    onward: Vec<Onward>,
}

impl<'m> Rewriter<'_, 'm> {
    fn build(&self) -> Builder<'m> {
        self.cx.build
    }

    /// A copy of code of the original.
    fn copy(&self, code: Expr<'m>) -> Expr<'m> {
        self.copy_around(code, &[])
    }

    fn copy_all(&self, code: &[Expr<'m>]) -> impl Iterator<Item = Expr<'m>> {
        code.iter().map(|&expr| self.copy(expr))
    }

    /// A copy without some of its children, which must be set.
    fn copy_around(&self, code: Expr<'m>, children: &[u32]) -> Expr<'m> {
        let left_out: Vec<Expr<'m>> = children.iter().map(|&child| code.child(child)).collect();
        self.original.copy_code_to(self.cx.module, self.cx.function, code, &left_out)
    }

    /// Rewrites a region of the original. The lead-in, which is a copy, is executed before it, and only when it is
    /// entered normally.
    fn rewrite(&mut self, id: RegionId, expr: Expr<'m>, entry: Entry, lead_in: Vec<Expr<'m>>) -> Expr<'m> {
        stacker::maybe_grow(64 * 1024, 4 * 1024 * 1024, || self.rewrite_region(id, expr, entry, lead_in))
    }

    fn rewrite_region(&mut self, id: RegionId, expr: Expr<'m>, entry: Entry, mut lead_in: Vec<Expr<'m>>) -> Expr<'m> {
        let plan = self.cx.plan;
        let region = plan.region(id);
        let onward = std::mem::take(&mut self.onward);
        let mut before = Vec::new();
        if passes_on(region, plan) {
            self.onward = onward;
        } else {
            before = self.go_onward(region.sites.start, &onward, entry, &mut lead_in);
        }
        let rewritten = match region.kind {
            RegionKind::Block => self.rewrite_block(region, expr, entry, lead_in),
            RegionKind::Loop => {
                // The back edge enters the body normally.
                let around = self.rewrite_body(region, expr, Entry::Any);
                self.put_before(lead_in, around)
            }
            RegionKind::Try => {
                let around = self.rewrite_body(region, expr, entry);
                self.put_before(lead_in, around)
            }
            RegionKind::If => self.rewrite_if(region, expr, entry, lead_in),
            RegionKind::Operands => self.rewrite_operands(region, expr, entry, lead_in),
        };
        let rewritten = self.after_lead_in(before, rewritten);
        self.cx.add_tests_around(region, rewritten)
    }

    /// A loop or try around its rewritten body.
    fn rewrite_body(&mut self, region: &Region, expr: Expr<'m>, entry: Entry) -> Expr<'m> {
        let (child, part) = region.parts[0];
        let around = self.copy_around(expr, &[child]);
        around.set_child(child, self.rewrite(part, expr.child(child), entry, Vec::new()));
        around
    }

    /// Executes the lead-in before the code, unless rewinding.
    fn put_before(&mut self, lead_in: Vec<Expr<'m>>, code: Expr<'m>) -> Expr<'m> {
        if lead_in.is_empty() {
            return code;
        }
        let lead_in = self.build().sequence(&lead_in);
        let normally = self.build().if_(self.build().i32_eqz(self.rewinding()), lead_in, None);
        self.build().block(None, &[normally, code], Some(code.type_()))
    }

    /// The lead-in and the code in one expression.
    fn after_lead_in(&self, mut lead_in: Vec<Expr<'m>>, code: Expr<'m>) -> Expr<'m> {
        if lead_in.is_empty() {
            return code;
        }
        lead_in.push(code);
        self.build().block(None, &lead_in, Some(code.type_()))
    }

    /// Whether the state is not normal. Asked only where it is normal or a landing is on its way to be resumed.
    fn rewinding(&self) -> Expr<'m> {
        self.cx.state()
    }

    /// A condition that counts while rewinding only.
    fn while_rewinding(&self, condition: Expr<'m>) -> Expr<'m> {
        self.build().i32_mul(self.rewinding(), condition)
    }

    /// The condition, or the condition while rewinding, depending on how the region is entered.
    fn on_entry(&self, entry: Entry, condition: Expr<'m>) -> Expr<'m> {
        match entry {
            Entry::Rewinding => condition,
            Entry::Any => self.while_rewinding(condition),
        }
    }

    fn rewrite_block(&mut self, region: &Region, expr: Expr<'m>, entry: Entry, mut lead_in: Vec<Expr<'m>>) -> Expr<'m> {
        let build = self.build();
        let children = expr.block_children();
        let first = region.parts[0].0 as usize;
        if entry == Entry::Any {
            lead_in.extend(self.copy_all(&children[..first]));
        }
        let labels: Vec<String> = region.parts.iter().skip(1).map(|_| self.cx.new_label("part")).collect();
        let starts = region.parts.iter().skip(1).map(|&(_, part)| self.cx.plan.region(part).sites.start);
        let own = starts.zip(&labels).map(|(from, label)| Onward { from, label: label.clone() });
        self.onward.extend(own.rev());
        let mut code = Vec::new();
        for (i, &(child, part)) in region.parts.iter().enumerate() {
            if i > 0 {
                code = vec![build.block(Some(&labels[i - 1]), &code, Some(Type::NONE))];
            }
            let part_entry = if i == 0 { entry } else { Entry::Any };
            code.push(self.rewrite(part, children[child as usize], part_entry, std::mem::take(&mut lead_in)));
            let end = region.parts.get(i + 1).map_or(children.len(), |&(next, _)| next as usize);
            code.extend(self.copy_all(&children[child as usize + 1..end]));
        }
        let block = build.block(expr.label().as_deref(), &code, Some(expr.type_()));
        self.original.copy_location_to(self.cx.function, expr, block);
        block
    }

    fn rewrite_if(&mut self, region: &Region, expr: Expr<'m>, entry: Entry, mut lead_in: Vec<Expr<'m>>) -> Expr<'m> {
        let build = self.build();
        let plan = self.cx.plan;
        let part = |child: u32| region.parts.iter().find(|&&(c, _)| c == child).map(|&(_, id)| id);
        let (condition, then, otherwise) = (part(0), part(1), part(2));
        let arm_entry = if condition.is_some() { Entry::Any } else { entry };

        // What the condition must be when a landing in an arm is resumed.
        let forced = match (then, otherwise) {
            (None, None) => None,
            (Some(_), None) => Some(build.i32(1)),
            (None, Some(_)) => Some(build.i32(0)),
            (Some(_), Some(arm)) => {
                let first = plan.region(arm).sites.start;
                Some(self.site_below(first))
            }
        };
        if entry == Entry::Rewinding && condition.is_none() {
            match (then, otherwise) {
                (Some(id), None) => return self.rewrite(id, expr.child(1), entry, lead_in),
                (None, Some(id)) => return self.rewrite(id, expr.child(2), entry, lead_in),
                _ => {}
            }
        }
        if let (Entry::Any, None, Some(id), false) = (entry, condition, then, expr.has_else())
            && takes_lead_in(plan, id)
        {
            // Rewinding goes past the condition: it belongs to the lead-in of what is inside.
            let label = self.cx.new_label("not");
            let unless = self.unless(expr.child(0));
            lead_in.push(build.break_(&label, Some(unless), None));
            let arm = self.rewrite(id, expr.child(1), entry, lead_in);
            let block = build.block(Some(&label), &[arm], Some(Type::NONE));
            self.original.copy_location_to(self.cx.function, expr, block);
            return block;
        }
        let first_arm_site = [then, otherwise].iter().flatten().map(|&id| plan.region(id).sites.start).min();
        let new_condition = match (condition, forced) {
            (None, None) => self.copy(expr.child(0)),
            (None, Some(forced)) => match entry {
                Entry::Rewinding => forced,
                Entry::Any => {
                    let evaluated = self.copy(expr.child(0));
                    self.force_condition(forced, then.is_some(), otherwise.is_some(), evaluated, &mut lead_in)
                }
            },
            (Some(id), forced) => {
                let evaluated = self.rewrite(id, expr.child(0), entry, Vec::new());
                match (forced, first_arm_site) {
                    (Some(forced), Some(site)) => {
                        let in_arm = self.on_entry(entry, self.site_at_least(site));
                        build.if_(in_arm, forced, Some(evaluated))
                    }
                    _ => evaluated,
                }
            }
        };
        let mut replaced = vec![0];
        replaced.extend(region.parts.iter().map(|&(child, _)| child).filter(|&child| child > 0));
        let around = self.copy_around(expr, &replaced);
        around.set_child(0, new_condition);
        // Sites beyond are in the last arm that is entered while rewinding.
        let onward = std::mem::take(&mut self.onward);
        let (onward_then, onward_otherwise) = match otherwise {
            Some(_) => (Vec::new(), onward),
            None => (onward, Vec::new()),
        };
        for (child, id, onward) in [(1, then, onward_then), (2, otherwise, onward_otherwise)] {
            self.onward = onward;
            if let Some(id) = id {
                around.set_child(child, self.rewrite(id, expr.child(child), arm_entry, Vec::new()));
            }
            self.cx.add_test_in_arm(region, around, child, id.is_some());
        }
        let around = self.cx.add_test_behind(region, around);
        self.put_before(lead_in, around)
    }

    /// The opposite of a condition of the original.
    fn unless(&self, condition: Expr<'m>) -> Expr<'m> {
        if condition.is_zero_test() && condition.child(0).type_() == Type::I32 {
            return self.copy(condition.child(0));
        }
        self.build().i32_eqz(self.copy(condition))
    }

    /// The condition of an `if` that can be entered normally: forced while rewinding, after the lead-in otherwise. One
    /// that can be evaluated without harm, whatever its locals hold, is evaluated anyway.
    fn force_condition(
        &self,
        forced: Expr<'m>,
        then: bool,
        otherwise: bool,
        condition: Expr<'m>,
        lead_in: &mut Vec<Expr<'m>>,
    ) -> Expr<'m> {
        let build = self.build();
        let effects = self.cx.module.effects(condition);
        // A reference that the frame does not hold is null, whatever its type in the original.
        let can_be_null = effects.reads.iter().all(|&local| self.cx.plan.local_type(local).is_defaultable());
        let harmless = !(effects.calls || effects.traps || effects.side_effects || effects.generative) && can_be_null;
        if harmless && lead_in.is_empty() {
            match (then, otherwise) {
                (true, false) => return build.i32_or(condition, self.rewinding()),
                _ => return build.select(self.rewinding(), forced, condition),
            }
        }
        let evaluated = self.after_lead_in(std::mem::take(lead_in), condition);
        build.if_(self.rewinding(), forced, Some(evaluated))
    }

    fn rewrite_operands(
        &mut self,
        region: &Region,
        expr: Expr<'m>,
        entry: Entry,
        mut lead_in: Vec<Expr<'m>>,
    ) -> Expr<'m> {
        let plan = self.cx.plan;
        let callee = region.landing.map(|site| plan.landing(site).callee);
        let is_called = callee.is_some_and(Callee::is_resumed);
        if is_called && entry == Entry::Rewinding && region.parts.is_empty() {
            return self.call_resume(region.landing.expect("it has a callee"), expr);
        }
        let mut replaced: Vec<u32> = region.parts.iter().map(|&(child, _)| child).collect();
        replaced.extend(region.carried.iter().map(|carried| carried.child));
        let around = self.copy_around(expr, &replaced);
        let mut part_entry = entry;
        for &(child, part) in &region.parts {
            // The first operand is evaluated first; a landing's own operands only if it is not resumed itself.
            let leads = child == 0 && region.carried(0).is_none() && !is_called;
            let operand_lead_in = if leads { std::mem::take(&mut lead_in) } else { Vec::new() };
            let operand = self.rewrite(part, expr.child(child), part_entry, operand_lead_in);
            around.set_child(child, operand);
            part_entry = Entry::Any;
        }
        for carried in &region.carried {
            let operand = self.carried_operand(region, expr, around, carried, entry);
            around.set_child(carried.child, operand);
        }
        self.cx.add_test_before(region, around);
        let around = self.cx.add_test_behind(region, around);
        let Some(site) = region.landing.filter(|_| is_called) else { return self.put_before(lead_in, around) };
        let call = self.call_resume(site, expr);
        if !region.parts.is_empty() {
            // It is resumed itself, or executed, perhaps to resume a landing among its operands.
            let resumed = self.on_entry(entry, self.site_is(site));
            let choice = self.build().if_(resumed, call, Some(around));
            return self.put_before(lead_in, choice);
        }
        // A callee that is being unwound can come to a join.
        let resuming = match plan.landing(site).is_join && lead_in.is_empty() {
            true => self.build().i32_and(self.rewinding(), self.build().i32(State::Rewinding as u32)),
            false => self.rewinding(),
        };
        let called = self.after_lead_in(lead_in, around);
        self.build().if_(resuming, call, Some(called))
    }

    /// An operand that later landings need: its value when one of those is resumed, and itself otherwise. `around` has
    /// the operand's rewritten form if it is a part; else it is still to be copied.
    fn carried_operand(
        &self,
        region: &Region,
        expr: Expr<'m>,
        around: Expr<'m>,
        carried: &CarriedOperand,
        entry: Entry,
    ) -> Expr<'m> {
        let build = self.build();
        let own_part = region.parts.iter().find(|&&(child, _)| child == carried.child);
        let after_a_part = region.parts.iter().any(|&(child, _)| child < carried.child);
        let kept = match carried.carry {
            Carry::Recompute => None,
            Carry::ReadLocal(local) | Carry::Spill(local, _) => {
                Some(build.local_get(local, self.cx.plan.local_type(local)))
            }
        };
        if let (Some(kept), None, false, Entry::Rewinding) = (kept, own_part, after_a_part, entry) {
            return kept;
        }
        let operand = match own_part {
            Some(_) => around.child(carried.child),
            None => self.copy(expr.child(carried.child)),
        };
        let Some(kept) = kept else { return operand };
        let evaluated = match carried.carry {
            Carry::Spill(local, _) => match carried.test {
                Some(site) => self.cx.keep_and_test(local, operand, site),
                None => build.local_tee(local, operand, self.cx.plan.local_type(local)),
            },
            _ => operand,
        };
        let skipped = match own_part {
            None => self.rewinding(),
            Some(&(_, part)) => {
                let next = self.cx.plan.region(part).sites.end;
                let beyond = self.site_at_least(next);
                if after_a_part { self.while_rewinding(beyond) } else { self.on_entry(entry, beyond) }
            }
        };
        build.if_(skipped, kept, Some(evaluated))
    }

    /// Resumes the callee of a landing, whose call is given for its location.
    fn call_resume(&self, site: Site, original: Expr<'m>) -> Expr<'m> {
        let landing = self.cx.plan.landing(site);
        let resumed = match landing.callee {
            Callee::Entry => unreachable!("an entry import is called again, not resumed"),
            Callee::Function(number) => {
                self.build().call(self.cx.runtime.resume_name(number), &[], landing.result.top())
            }
            Callee::NextFrame => self.cx.runtime.call_next_frame(self.build(), landing.result),
        };
        self.original.copy_location_to(self.cx.function, original, resumed);
        self.cx.function.cast(self.cx.module, resumed, landing.result)
    }
}
