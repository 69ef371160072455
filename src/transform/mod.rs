//! Plans → code. Nothing here decides.
//!
//! [`unwind`] changes the function itself, [`resume`] writes its resume function, both around the common [`epilogue`];
//! [`runtime`] adds the helpers that they call, and [`roots`] lets hosts call again what they called first.

pub mod asserts;
pub mod declarations;
pub mod epilogue;
pub mod in_line;
pub mod joins;
pub mod linking;
pub mod outline;
pub mod references;
pub mod resume;
pub mod retry;
pub mod roots;
pub mod runtime;
pub mod state;
pub mod unwind;

use std::borrow::Cow;

use crate::abi::State;
use crate::ir::{Builder, Expr, Function, Module, Type};
use crate::plan::{Epilogue, FunctionPlan, InPlace, Masks, Region, Site, TestForm, Way};
use runtime::Runtime;

/// What rewriting one function needs at hand.
pub struct FunctionCx<'a, 'm> {
    pub module: Module<'m>,
    pub build: Builder<'m>,
    /// The function that is rewritten: the original or its resume function.
    pub function: Function<'m>,
    pub plan: &'a FunctionPlan,
    pub runtime: &'a Runtime,
    /// The function's own, or the one of its resume function.
    pub epilogues: Cow<'a, [Epilogue]>,
    /// By epilogue, whether it is entered by one site's test and in no other way.
    pub single: Vec<bool>,
    is_resume: bool,
    /// In a resume function, the local with the site that is resumed, if there are several.
    pub site: Option<u32>,
    /// In a resume function that loads its frames in line, the local with the address in the buffer that it has come to.
    pub place: Option<u32>,
    label_prefix: String,
    labels: u32,
}

/// What no label of a function begins with.
fn free_prefix(function: Function<'_>) -> String {
    let mut prefix = String::from("fork.");
    let taken = function.labels_with_prefix(&prefix);
    while taken.iter().any(|label| label.starts_with(&prefix)) {
        prefix.push('_');
    }
    prefix
}

impl<'a, 'm> FunctionCx<'a, 'm> {
    /// For rewriting the function itself.
    pub fn unwind(module: Module<'m>, function: Function<'m>, plan: &'a FunctionPlan, runtime: &'a Runtime) -> Self {
        Self::new(module, function, plan, runtime, Cow::Borrowed(&plan.epilogues))
    }

    /// For writing its resume function, which is to be small.
    pub fn resume(
        module: Module<'m>,
        original: Function<'m>,
        resume: Function<'m>,
        plan: &'a FunctionPlan,
        runtime: &'a Runtime,
    ) -> Self {
        // In line, looking at a mask would take more code than an epilogue for each kind of frame.
        let epilogues = match plan.in_line {
            true => Cow::Borrowed(plan.epilogues.as_slice()),
            false => Cow::Owned(vec![plan.common_epilogue()]),
        };
        let cx = Self::new(module, resume, plan, runtime, epilogues);
        FunctionCx { is_resume: true, label_prefix: free_prefix(original), ..cx }
    }

    fn new(
        module: Module<'m>,
        function: Function<'m>,
        plan: &'a FunctionPlan,
        runtime: &'a Runtime,
        epilogues: Cow<'a, [Epilogue]>,
    ) -> Self {
        let mut single: Vec<bool> = epilogues.iter().map(|e| e.sites.len() == 1).collect();
        // In line other epilogues go on behind where tests enter.
        if !plan.in_line {
            epilogues.iter().filter_map(|e| e.next).for_each(|next| single[next] = false);
        }
        FunctionCx {
            module,
            build: module.build(),
            function,
            plan,
            runtime,
            epilogues,
            single,
            is_resume: false,
            site: None,
            place: None,
            label_prefix: free_prefix(function),
            labels: 0,
        }
    }

    pub fn new_label(&mut self, name: &str) -> String {
        self.labels += 1;
        format!("{}{name}.{}", self.label_prefix, self.labels)
    }

    /// Index of the epilogue that a site's test leaves for.
    pub fn epilogue_of(&self, site: Site) -> usize {
        if self.epilogues.len() == 1 { 0 } else { self.plan.landing(site).epilogue }
    }

    /// The site, if its test brings it to the epilogue: not where the epilogue has no other.
    pub fn brought_site(&self, site: Site) -> Option<Expr<'m>> {
        let epilogue = self.epilogue_of(site);
        (!self.single[epilogue]).then(|| self.build.i32(site.0))
    }

    /// The label of an epilogue. Its block gives the site, unless it is a single one.
    pub fn epilogue_label(&self, index: usize) -> String {
        format!("{}epilogue.{index}", self.label_prefix)
    }

    pub fn in_place_label(&self, site: Site) -> String {
        format!("{}landing.{}", self.label_prefix, site.0)
    }

    /// The state: zero when normal.
    pub fn state(&self) -> Expr<'m> {
        self.build.global_get(self.runtime.state_global(), Type::I32)
    }

    /// Leaves for the epilogue unless the state is normal.
    pub fn test(&self, site: Site) -> Expr<'m> {
        self.leave_if(self.state(), site)
    }

    /// Leaves for the epilogue.
    fn leave_if(&self, condition: Expr<'m>, site: Site) -> Expr<'m> {
        let label = self.epilogue_label(self.epilogue_of(site));
        let Some(brought) = self.brought_site(site) else { return self.build.break_(&label, Some(condition), None) };
        match self.plan.landing(site).test_form {
            TestForm::Arm if !self.is_resume => {
                self.build.if_(condition, self.build.break_(&label, None, Some(brought)), None)
            }
            _ => self.build.drop(self.build.break_(&label, Some(condition), Some(brought))),
        }
    }

    /// Makes the site's mask the current one for pushing; gives the site on.
    pub fn select_mask(&self, site: Expr<'m>, masks: Masks) -> Expr<'m> {
        let (build, helper) = (self.build, self.runtime.select_mask_helper(masks));
        match (masks, self.site) {
            (Masks::Packed(masks, bits), _) => {
                build.call(&helper, &[site, build.i64(masks), build.i32(bits)], Type::I32)
            }
            (Masks::Function(number, bits), None) => {
                let both = build.i32(number << 6 | (bits - 1));
                build.call(&helper, &[site, both], Type::I32)
            }
            (Masks::Function(number, bits), Some(local)) => {
                let site = build.local_tee(local, site, Type::I32);
                let mask = build.call(&self.runtime.mask_function(number), &[site], Type::I64);
                let highest_first = build.i64_shl(mask, build.i64(u64::from(u64::BITS - bits)));
                let set = build.global_set(&self.runtime.pushed_mask(), highest_first);
                build.block(None, &[set, build.local_get(local, Type::I32)], Some(Type::I32))
            }
        }
    }

    /// Keeps a value in a local, then tests, then gives the value.
    pub fn keep_and_test(&self, local: u32, value: Expr<'m>, site: Site) -> Expr<'m> {
        let type_ = self.plan.local_type(local);
        let set = self.build.local_set(local, value);
        let get = self.build.local_get(local, type_);
        self.build.block(None, &[set, self.test(site), get], Some(type_))
    }

    /// Puts the test in front of the operand that follows the landing, if it goes there.
    pub fn add_test_before(&self, region: &Region, expr: Expr<'m>) {
        if let Some((child, site)) = region.test_before {
            let operand = expr.child(child);
            let block = self.build.block(None, &[self.test(site), operand], Some(operand.type_()));
            expr.set_child(child, block);
        }
    }

    /// Puts the test on a way out of the node that the node has no arm for.
    pub fn add_test_behind(&self, region: &Region, expr: Expr<'m>) -> Expr<'m> {
        match region.test_behind {
            Some((Way::Taken, site)) => {
                let branch = self.build.break_(&expr.branch_label().expect("it is a branch"), None, None);
                let taken = self.build.block(None, &[self.test(site), branch], Some(Type::UNREACHABLE));
                return self.build.if_(expr.child(0), taken, None);
            }
            Some((Way::NewElse, site)) => expr.add_else(self.test(site)),
            Some((Way::Arm(_), _)) | None => {}
        }
        expr
    }

    /// Puts the test at the start of an arm, if it goes there. The arm can be `resumed`: then rewinding comes by, too.
    pub fn add_test_in_arm(&self, region: &Region, expr: Expr<'m>, child: u32, resumed: bool) {
        let Some((_, site)) = region.test_behind.filter(|(way, _)| *way == Way::Arm(child)) else { return };
        let unwinding = match resumed {
            true => self.build.i32_eq(self.state(), self.build.i32(State::Unwinding as u32)),
            false => self.state(),
        };
        let arm = expr.child(child);
        expr.set_child(child, self.build.block(None, &[self.leave_if(unwinding, site), arm], Some(arm.type_())));
    }

    /// Puts the tests that belong to the node itself around its rewritten form.
    pub fn add_tests_around(&self, region: &Region, expr: Expr<'m>) -> Expr<'m> {
        let mut expr = expr;
        if let Some(site) = region.landing {
            expr = match self.plan.landing(site).test_in_place {
                Some(InPlace::Carried) => self.build.break_(&self.in_place_label(site), Some(self.state()), Some(expr)),
                Some(InPlace::Kept(local)) => self.keep_and_test(local, expr, site),
                None => expr,
            };
        }
        if let Some(site) = region.test_in_tee {
            expr = self.keep_and_test(expr.local(), expr.child(0), site);
        }
        if let Some(site) = region.test_after {
            expr = self.build.block(None, &[expr, self.test(site)], None);
        }
        expr
    }
}
