//! Module → plans. Nothing here rewrites code.

pub mod fork_path;
pub mod frames;
pub mod regions;
pub mod rematerialize;
pub mod state_tests;

use crate::analysis::fork_path::ForkPath;
use crate::error::Error;
use crate::ir::{Function, Module};
use crate::options::Replay;
use crate::plan::FunctionPlan;

/// Decides everything about one function of the fork path.
pub fn plan_function<'m>(
    module: Module<'m>,
    path: &ForkPath,
    function: Function<'m>,
    replay: Replay,
    kind: frames::FrameKind,
) -> Result<FunctionPlan, Error> {
    let liveness = function.liveness(module);
    let tree = regions::Tree::build(module, path, function, &liveness);
    let mut plan = tree.plan(function, &liveness);
    rematerialize::carry_operands(&mut plan, &tree, module, replay);
    state_tests::place_tests(&mut plan, &tree, module);
    frames::lay_out(&mut plan, kind);
    Ok(plan)
}
