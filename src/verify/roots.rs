//! What hosts call: exports of functions on the fork path, and the exports that resume the outermost frame.

use std::collections::HashSet;

use crate::abi;
use crate::ir::{Module, Name};
use crate::verify::Before;
use crate::verify::body::{Body, Place};
use crate::verify::check::Output;
use crate::verify::machine::{Machine, Rules, Stop};
use crate::verify::memory::Value;
use crate::verify::violation::Problem;

/// Checks all of them. `on_path`: functions of the fork path. An error comes with the function's name.
pub fn check<'m>(
    module: Module<'m>,
    output: &Output<'_, 'm>,
    before: &Before,
    on_path: &HashSet<&str>,
) -> Result<(), (String, Problem)> {
    for export in module.exports().into_iter().filter(|e| e.kind == 0) {
        let original = before.exports.get(&export.name);
        let is_root = original.is_some_and(|function| on_path.contains(function.as_str()));
        let is_ours = original.is_none() && export.name.starts_with(abi::RESUME);
        if !is_root && !is_ours {
            if original.is_some_and(|function| *function != export.item) {
                return Err((export.item, Problem::RootChanged(export.name)));
            }
            continue;
        }
        let body = Body::read(module.function(&export.item));
        if !output.resumes(&body) {
            return Err((export.item, Problem::NoRoot(export.name)));
        }
        if let Some(function) = original
            && *function != export.item
            && !output.calls(&body, Name::of(function))
        {
            return Err((export.item, Problem::RootChanged(export.name)));
        }
    }
    Ok(())
}

impl Output<'_, '_> {
    /// Whether the function resumes the frame on top while the state is REWINDING.
    pub fn resumes(&self, body: &Body) -> bool {
        // Nobody can have left a frame that gives such results.
        let Some(number) = self.number_with_results(body.results) else { return true };
        let expected = Name::of(&self.resume_names[number as usize]);
        let stop = self.run(body, number, abi::State::Rewinding);
        matches!(stop, Stop::Call { function, .. } if function == expected)
    }

    /// Whether the function calls this one with its own arguments while the state is NORMAL.
    fn calls(&self, body: &Body, expected: Name) -> bool {
        let own: Vec<Value> = (0..body.params).map(Value::local).collect();
        let stop = self.run(body, 0, abi::State::Normal);
        matches!(stop, Stop::Call { function, arguments } if function == expected && arguments == own)
    }

    fn run(&self, body: &Body, number: u32, kind: abi::State) -> Stop {
        let world = self.world;
        let mut state = world.with_callee(number);
        state.globals.insert(world.state, Value::Bits(kind as u64));
        let locals = (0..body.locals.len() as u32).map(Value::local).collect();
        let rules = Rules::Harmless { rebuilds: false };
        Machine::new(world, state, body, Place { at: 0, height: 0 }, locals, rules).run()
    }
}
