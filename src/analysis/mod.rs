//! Module → plans. Nothing here rewrites code.

pub mod alike;
pub mod coloring;
pub mod epilogues;
pub mod fork_path;
pub mod frames;
pub mod in_line;
pub mod joins;
pub mod legacy;
pub mod listing;
pub mod outlining;
pub mod references;
pub mod regions;
pub mod rematerialize;
pub mod retries;
pub mod slot_order;
pub mod state;
pub mod state_tests;

use crate::analysis::alike::Alike;
use crate::analysis::epilogues::Exact;
use crate::analysis::fork_path::ForkPath;
use crate::analysis::references::{ReferenceRules, Refusal};
use crate::analysis::regions::Joined;
use crate::ir::{Function, Module};
use crate::options::Options;
use crate::plan::FunctionPlan;

/// Decides what is done with functions of the fork path.
pub struct Planner<'a, 'm> {
    pub module: Module<'m>,
    pub path: &'a ForkPath,
    pub options: &'a Options,
    pub rules: ReferenceRules,
}

impl<'m> Planner<'_, 'm> {
    /// Decides everything about one function, whose index in the module is given.
    pub fn plan(&self, function: Function<'m>, index: u32, joined: &Joined) -> Result<FunctionPlan, Refusal<'m>> {
        let (module, path, options) = (self.module, self.path, self.options);
        let liveness = path.liveness(module, function);
        let tree = regions::Tree::build(module, path, function, &liveness, joined);
        let mut plan = tree.plan(function, &liveness);
        rematerialize::carry_operands(&mut plan, &tree, module, options.replay);
        references::settle(&mut plan, &tree, module, function, &self.rules)?;
        state_tests::place_tests(&mut plan, &tree, module, !path.is_shared());
        frames::lay_out(&mut plan);
        slot_order::improve(&mut plan);
        let mut exact = epilogues::are_worth_it(&mut plan, &tree, index);
        if exact == Exact::Yes {
            match alike::make_alike(&mut plan, &tree, &liveness) {
                Alike::Nothing => {}
                Alike::Some => {
                    frames::lay_out(&mut plan);
                    slot_order::improve(&mut plan);
                }
                Alike::All => exact = Exact::No,
            }
        }
        epilogues::share(&mut plan, &tree, exact, index);
        retries::choose(&mut plan, &tree, path, options.resume.is_some());
        Ok(plan)
    }
}
