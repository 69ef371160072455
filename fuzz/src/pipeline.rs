//! Which passes run around ours, and with which options.

use crate::generate::{Features, Source};

/// Passes and options of a seed.
pub fn choose(source: &mut Source) -> (Vec<String>, Vec<String>) {
    let before: &[&[&str]] = &[&[], &["-O2"], &["-Oz"], &["-O1"]];
    let after: &[&[&str]] = &[&[], &["-O2"], &["-Oz"], &["--flatten", "-O3"], &["-O3"]];
    let before = before[source.weighted(&[5, 3, 1, 1])];
    let after = after[source.weighted(&[6, 3, 2, 1, 1])];
    let passes = before.iter().chain(&["--fork-instrument"]).chain(after).map(|pass| (*pass).to_owned());
    let mut options = Vec::new();
    if source.one_in(4) {
        options.push("--pass-arg=fork-instrument-asserts".to_owned());
    }
    if let Some(replay) = [None, Some("none"), Some("scalar"), Some("effects")][source.weighted(&[4, 2, 2, 1])] {
        options.push(format!("--pass-arg=fork-instrument-replay@{replay}"));
    }
    (passes.collect(), options)
}

/// Lets references that are live across forks be kept in tables, which the harness does not take to a fresh instance.
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
