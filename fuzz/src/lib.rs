//! Random programs that compare modules instrumented by `fork-instrument` with their originals.
//!
//! [`generate`] makes programs from seeds, [`smith`] takes those of wasm-smith and [`ttf`] those of Binaryen; [`pipeline`] chooses
//! what runs around the pass; [`check`] instruments one and compares it with its original under many schedules of forks, with
//! [`oracle`] for forks that fail; [`bytes`] mutates real modules, [`buffers`] what forks saved; [`campaign`] checks many cases,
//! [`rotation`] takes all kinds in turn; [`finding`] keeps what is wrong, [`minimise`] makes it smaller.

pub mod buffers;
pub mod bytes;
pub mod campaign;
pub mod check;
pub mod finding;
pub mod generate;
pub mod minimise;
pub mod oracle;
pub mod pipeline;
pub mod prepare;
pub mod rotation;
pub mod smith;
pub mod tool;
pub mod ttf;

use check::Case;
use fork_host::replay::Value;
use generate::{Exceptions, Limits, Program, Source};

/// The case of a seed: a generated program, a pipeline, and runs.
pub fn generated_case(seed: u64, limits: Limits) -> (Case, Vec<u32>) {
    let program = generate::generate(Source::from_seed(seed), limits);
    let mut source = Source::from_seed(seed ^ 0x9e37_79b9_7f4a_7c15);
    let (passes, mut options) = pipeline::choose(&mut source, !program.features.exceptions);
    options.extend(pipeline::feature_options(&mut source, program.features));
    let roots = vec![("run".to_owned(), Vec::<Value>::new())];
    let separate = source.one_in(4);
    let case = Case {
        wasm: program.wasm,
        passes,
        options,
        roots,
        seed,
        plain_imports: true,
        separate,
        by_reference: limits.exceptions == Exceptions::ByReference,
        legacy: limits.exceptions == Exceptions::Legacy,
        ..Case::default()
    };
    (case, program.choices)
}

/// The same for another program, with what that one uses allowed.
pub fn case_with(program: &Program, like: &Case) -> Case {
    let mut options = like.options.clone();
    for option in pipeline::needed_features(program.features) {
        if !options.contains(&option) {
            options.push(option);
        }
    }
    Case { wasm: program.wasm.clone(), options, ..like.clone() }
}
