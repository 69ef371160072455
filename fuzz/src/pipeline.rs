//! Which passes run around ours, and with which options.
//!
//! Half of the pipelines have whole optimisation levels around ours, the other half short sequences of single passes, which
//! make shapes that neither compilers nor whole levels leave. Traps may be reordered and bits of NaNs may change by what
//! is not ours: `check` compares traps as one kind then, and has a look at the pipeline without our pass, and at what the
//! passes in front make, before it calls something a finding.

use crate::generate::{Features, Source};

/// Passes that are run one after the other, and how often.
struct Step {
    passes: &'static [&'static str],
    weight: u32,
    needs: Needs,
}

/// Which modules passes take.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    /// Neither exceptions nor garbage collection.
    Flat,
}

const fn step(weight: u32, passes: &'static [&'static str]) -> Step {
    Step { passes, weight, needs: Needs::Nothing }
}

const fn flat(weight: u32, passes: &'static [&'static str]) -> Step {
    Step { passes, weight, needs: Needs::Flat }
}

/// Before or after ours. Left out: what needs a closed world or another feature, what changes imports or exports, and what
/// makes other programs.
const STEPS: [Step; 59] = [
    step(6, &["--coalesce-locals"]),
    step(3, &["--coalesce-locals-learning"]),
    step(4, &["--merge-locals"]),
    step(5, &["--simplify-locals"]),
    step(2, &["--simplify-locals-nonesting"]),
    step(2, &["--simplify-locals-nostructure"]),
    step(2, &["--simplify-locals-notee"]),
    step(2, &["--simplify-locals-notee-nostructure"]),
    step(3, &["--ssa"]),
    step(3, &["--ssa-nomerge"]),
    step(4, &["--local-cse"]),
    step(4, &["--code-folding"]),
    step(4, &["--code-pushing"]),
    step(4, &["--rse"]),
    step(4, &["--licm"]),
    step(3, &["--reorder-locals"]),
    step(3, &["--tuple-optimization"]),
    step(2, &["--inlining"]),
    step(3, &["--inlining-optimizing"]),
    step(2, &["--dae"]),
    step(3, &["--dae-optimizing"]),
    step(1, &["--dae2"]),
    step(4, &["--merge-blocks"]),
    step(4, &["--remove-unused-brs"]),
    step(2, &["--remove-unused-names"]),
    step(1, &["--dealign"]),
    step(1, &["--pick-load-signs"]),
    step(5, &["--optimize-instructions"]),
    step(2, &["--precompute"]),
    step(4, &["--precompute-propagate"]),
    step(2, &["--avoid-reinterprets"]),
    step(2, &["--const-hoisting"]),
    step(1, &["--heap2local"]),
    step(1, &["--heap-store-optimization"]),
    step(1, &["--optimize-casts"]),
    step(1, &["--local-subtyping"]),
    step(1, &["--type-ssa"]),
    step(2, &["--gufa"]),
    step(1, &["--gufa-optimizing"]),
    step(1, &["--global-refining"]),
    step(2, &["--simplify-globals"]),
    step(1, &["--simplify-globals-optimizing"]),
    step(1, &["--propagate-globals-globally"]),
    step(1, &["--reorder-globals"]),
    step(1, &["--reorder-functions"]),
    step(1, &["--duplicate-function-elimination"]),
    step(2, &["--merge-similar-functions"]),
    step(1, &["--monomorphize"]),
    step(2, &["--directize"]),
    step(1, &["--once-reduction"]),
    step(2, &["--generate-global-effects"]),
    step(1, &["--remove-unused-module-elements"]),
    step(3, &["--vacuum"]),
    step(1, &["--dce"]),
    step(2, &["--untee"]),
    step(1, &["--roundtrip"]),
    flat(5, &["--flatten"]),
    flat(4, &["--flatten", "--rereloop"]),
    flat(3, &["--flatten", "--dfo"]),
];

const OURS: &str = "--fork-instrument";

/// Passes and options of a seed. `flattens` is for modules without exceptions and garbage collection.
pub fn choose(source: &mut Source, flattens: bool) -> (Vec<String>, Vec<String>) {
    let mut passes = Vec::new();
    if source.one_in(2) {
        steps(source, flattens, 5, &mut passes);
        passes.push(OURS);
        if source.one_in(2) {
            steps(source, flattens, 4, &mut passes);
        }
    } else {
        let before: &[&[&str]] = &[&[], &["-O2"], &["-Oz"], &["-O1"]];
        let after: &[&[&str]] = &[&[], &["-O2"], &["-Oz"], &["--flatten", "-O3"], &["-O3"]];
        passes.extend(before[source.weighted(&[5, 3, 1, 1])]);
        passes.push(OURS);
        passes.extend(after[source.weighted(&[6, 3, 2, if flattens { 1 } else { 0 }, 1])]);
    }
    let mut options = Vec::new();
    if source.one_in(4) {
        options.push("--pass-arg=fork-instrument-asserts".to_owned());
    }
    if let Some(replay) = [None, Some("none"), Some("scalar"), Some("effects")][source.weighted(&[4, 2, 2, 1])] {
        options.push(format!("--pass-arg=fork-instrument-replay@{replay}"));
    }
    (passes.into_iter().map(str::to_owned).collect(), options)
}

/// Appends up to `most` steps.
fn steps(source: &mut Source, flattens: bool, most: u32, passes: &mut Vec<&'static str>) {
    let weights = STEPS.each_ref().map(|step| if flattens || step.needs == Needs::Nothing { step.weight } else { 0 });
    for _ in 0..source.range(1, most) {
        passes.extend(STEPS[source.weighted(&weights)].passes);
    }
}

/// Lets references that are live across forks be kept in tables.
pub const KEEP_REFERENCES: &str = "--pass-arg=fork-instrument-refs@tables";

/// Options that allow what a generated program uses, and perhaps more.
pub fn feature_options(source: &mut Source, features: Features) -> Vec<String> {
    let mut options = needed_features(features);
    let references = features.exceptions || source.one_in(2);
    let more = [
        (source.one_in(2), "multivalue"),
        (references, "reference-types"),
        (references, "bulk-memory"),
        (references && source.one_in(3), "gc"),
    ];
    options.extend(enable(&more));
    options.sort();
    options.dedup();
    options
}

/// Options that allow what a generated program uses.
pub fn needed_features(features: Features) -> Vec<String> {
    enable(&[
        (true, "mutable-globals"),
        (true, "sign-ext"),
        (true, "nontrapping-float-to-int"),
        (features.simd, "simd"),
        (features.multivalue, "multivalue"),
        (features.tail_calls, "tail-call"),
        (features.exceptions, "exception-handling"),
        (features.exceptions, "reference-types"),
        (features.memory64, "memory64"),
    ])
}

fn enable(features: &[(bool, &str)]) -> Vec<String> {
    features.iter().filter(|(on, _)| *on).map(|(_, name)| format!("--enable-{name}")).collect()
}

/// Options that allow numbers and control flow of all kinds.
pub fn numeric_features() -> Vec<String> {
    let names = [
        "mutable-globals",
        "sign-ext",
        "nontrapping-float-to-int",
        "simd",
        "bulk-memory",
        "multivalue",
        "tail-call",
        "extended-const",
    ];
    enable(&names.map(|name| (true, name)))
}

/// Options that allow what wasmtime runs.
pub fn all_features() -> Vec<String> {
    let mut options = numeric_features();
    let names = [
        "reference-types",
        "exception-handling",
        "gc",
        "memory64",
        "multimemory",
        "relaxed-simd",
        "wide-arithmetic",
        "bulk-memory-opt",
        "call-indirect-overlong",
        "threads",
        "custom-page-sizes",
    ];
    options.extend(enable(&names.map(|name| (true, name))));
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_told_apart_and_ours_is_always_there_once() {
        let mut names: Vec<_> = STEPS.iter().map(|step| step.passes).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), STEPS.len());
        for seed in 0..200 {
            let (passes, _) = choose(&mut Source::from_seed(seed), seed % 2 == 0);
            assert_eq!(passes.iter().filter(|pass| *pass == OURS).count(), 1, "{passes:?}");
            assert!(seed % 2 == 0 || !passes.iter().any(|pass| pass == "--flatten"), "{passes:?}");
        }
    }
}
