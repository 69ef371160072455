//! Plans → code. Nothing here decides.
//!
//! [`unwind`] changes the function itself, [`resume`] writes its resume function, both around the common [`epilogue`];
//! [`runtime`] adds the helpers that they call, and [`roots`] lets hosts call again what they called first.

pub mod asserts;
pub mod declarations;
pub mod epilogue;
pub mod linking;
pub mod references;
pub mod resume;
pub mod roots;
pub mod runtime;
pub mod state;
pub mod unwind;

use crate::ir::{Builder, Expr, Function, Kind, Module, Type};
use crate::plan::{FunctionPlan, InPlace, Region, Site};
use runtime::Runtime;

/// What rewriting one function needs at hand.
pub struct FunctionCx<'a, 'm> {
    pub module: Module<'m>,
    pub build: Builder<'m>,
    /// The function that is rewritten: the original or its resume function.
    pub function: Function<'m>,
    pub plan: &'a FunctionPlan,
    pub runtime: &'a Runtime,
    label_prefix: String,
    labels: u32,
}

impl<'a, 'm> FunctionCx<'a, 'm> {
    pub fn new(module: Module<'m>, function: Function<'m>, plan: &'a FunctionPlan, runtime: &'a Runtime) -> Self {
        let mut label_prefix = String::from("fork.");
        let taken: Vec<String> = function
            .nodes()
            .iter()
            .filter(|n| matches!(n.kind(), Kind::Block | Kind::Loop))
            .filter_map(|n| n.expr().label())
            .filter(|label| label.starts_with("fork."))
            .collect();
        while taken.iter().any(|label| label.starts_with(&label_prefix)) {
            label_prefix.push('_');
        }
        FunctionCx { module, build: module.build(), function, plan, runtime, label_prefix, labels: 0 }
    }

    pub fn new_label(&mut self, name: &str) -> String {
        self.labels += 1;
        format!("{}{name}.{}", self.label_prefix, self.labels)
    }

    /// The label that tests leave for. Its block gives the site, unless there is one landing only.
    pub fn epilogue_label(&self) -> String {
        format!("{}epilogue", self.label_prefix)
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
        let label = self.epilogue_label();
        if self.plan.landings.len() == 1 {
            return self.build.break_(&label, Some(self.state()), None);
        }
        let branch = self.build.break_(&label, Some(self.state()), Some(self.build.i32(site.0)));
        self.build.drop(branch)
    }

    /// Makes the mask of the site's frames the current one; gives the site on.
    pub fn select_mask(&self, site: Expr<'m>) -> Expr<'m> {
        let number = self.build.i32(self.plan.number.0);
        self.build.call(&self.runtime.select_mask_helper(), &[site, number], Type::I32)
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
