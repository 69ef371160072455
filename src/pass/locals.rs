//! Puts values into other locals, so that frames are alike.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::analysis::coloring::choose_locals;
use crate::analysis::fork_path::ForkPath;
use crate::error::Error;
use crate::ir::{Function, Module, Pass};
use crate::options::Options;
use crate::verify::locals::Reads;
use crate::verify::violation::Problem;
use crate::verify::{TAMPER_LOCALS, violation};

/// Shares locals in all functions of the fork path. With the verifier on, each read must find what it found.
pub fn share<'m>(
    pass: Pass<'m>,
    module: Module<'m>,
    path: &ForkPath,
    functions: &[Function<'m>],
    options: &Options,
) -> Result<(), Error> {
    let problems: Mutex<BTreeMap<usize, Problem>> = Mutex::default();
    pass.for_each_function(functions, &|i, function| {
        let webs = path.webs(module, function);
        let Some(mut locals) = choose_locals(&webs, function) else { return };
        let before = options.verify.then(|| Reads::of(module, function));
        if let Some(tamper) = TAMPER_LOCALS.get() {
            tamper(&mut locals);
        }
        webs.assign(&locals);
        if let Some(problem) = before.and_then(|before| before.differs_from(&Reads::of(module, function))) {
            problems.lock().expect("no thread panicked").insert(i, problem);
        }
    });
    let first = problems.into_inner().expect("no thread panicked").pop_first();
    first.map_or(Ok(()), |(i, problem)| Err(violation(module, &functions[i].name(), None, problem)))
}
