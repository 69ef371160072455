//! Misspelt names: what they may have meant.

use super::{OPTIONS, OptionInfo, PASS_NAME, PREFIX, usage};
use crate::error::Error;

/// Characters by which a misspelt name of the pass, or of an option with its prefix, may differ.
const TYPOS: usize = 3;

/// The error for an option that is not ours, with what it may have meant.
pub fn unknown(name: &str) -> Error {
    let known: Vec<String> = OPTIONS.iter().map(usage).collect();
    // The value is what follows an @; everything else is taken for the name.
    let meant = match name.split_once('=') {
        Some((name, value)) => closest_option(name).map(|option| format!("{PREFIX}{}@{value}", option.name)),
        None => closest_option(name).map(usage),
    };
    let meant = meant.map(|usage| format!(": did you mean {usage}?")).unwrap_or(".".into());
    Error::UnknownOption { argument: format!("{PREFIX}{name}"), meant, known: known.join(", ") }
}

fn closest_option(name: &str) -> Option<&'static OptionInfo> {
    closest(name, OPTIONS.iter().map(|option| (option.name, option)))
}

/// What a misspelt name may have meant.
pub fn closest<'a, T>(name: &str, candidates: impl Iterator<Item = (&'a str, T)>) -> Option<T> {
    let candidates = candidates.map(|(candidate, value)| (strsim::levenshtein(name, candidate), value));
    let (distance, value) = candidates.min_by_key(|(distance, _)| *distance)?;
    let length = name.chars().count();
    (distance <= 2.max(length / 3) && distance < length).then_some(value)
}

/// Pass arguments of nobody that look like ours: each with what was meant.
pub fn misspelt(arguments: &[(String, String)]) -> Vec<(String, String)> {
    let meant = |key: &str| {
        let by_name = OPTIONS.iter().find(|option| option.name == key);
        by_name.or_else(|| {
            let full: Vec<String> = OPTIONS.iter().map(|option| format!("{PREFIX}{}", option.name)).collect();
            let is_near = |full: &String| strsim::levenshtein(key, full) <= TYPOS;
            full.iter().position(is_near).map(|index| &OPTIONS[index])
        })
    };
    let foreign = arguments.iter().filter(|(key, _)| !key.starts_with(PREFIX) && key != PASS_NAME);
    foreign.filter_map(|(key, _)| Some((key.clone(), usage(meant(key)?)))).collect()
}

/// Whether a word of the command line looks like the pass's name, but is not.
pub fn is_misspelt_pass(word: &str) -> bool {
    let word = word.split_once('=').map_or(word, |(name, _)| name);
    let name = word.trim_start_matches('-');
    let is_option = name.len() < word.len();
    is_option && word != format!("--{PASS_NAME}") && strsim::levenshtein(name, PASS_NAME) <= TYPOS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    fn error_of(argument: &str) -> String {
        Options::parse("", &[(argument.to_owned(), "1".to_owned())]).unwrap_err().to_string()
    }

    #[test]
    fn a_misspelt_name_of_the_pass_is_noticed() {
        for word in ["--fork-instrumnt", "--fork_instrument=kernel.fork", "-fork-instrument", "--forkinstrument"] {
            assert!(is_misspelt_pass(word), "{word}");
        }
        for word in [
            "--fork-instrument",
            "--fork-instrument=*",
            "fork-instrumnt",
            "fork-instrument.wasm",
            "--asyncify",
            "--pass-arg",
            "-o",
        ] {
            assert!(!is_misspelt_pass(word), "{word}");
        }
    }

    #[test]
    fn an_unknown_option_names_the_valid_ones() {
        let error = error_of("fork-instrument-entyr");
        for option in OPTIONS {
            assert!(error.contains(&usage(option)), "{error} lacks {}", option.name);
        }
    }

    #[test]
    fn a_misspelt_option_names_the_one_that_was_meant() {
        for (argument, meant) in [
            ("entyr", "fork-instrument-entry@module.name[,…]?"),
            ("only-list", "fork-instrument-onlylist@names?"),
            ("verbose=1", "fork-instrument-verbose@1?"),
            ("entry=kernel.fork", "fork-instrument-entry@kernel.fork?"),
        ] {
            let error = error_of(&format!("{PREFIX}{argument}"));
            assert!(error.contains(&format!("did you mean {meant}")), "{error}");
        }
        let error = error_of("fork-instrument-colour");
        assert!(!error.contains("did you mean"), "{error}");
    }

    #[test]
    fn arguments_that_look_like_ours_are_noticed() {
        let found = |key: &str| misspelt(&[(key.to_string(), "x".to_string())]).pop().map(|(_, meant)| meant);
        assert_eq!(found("fork-instument-entry").as_deref(), Some("fork-instrument-entry@module.name[,…]"));
        assert_eq!(found("fork_instrument_verbose").as_deref(), Some("fork-instrument-verbose"));
        assert_eq!(found("onlylist").as_deref(), Some("fork-instrument-onlylist@names"));
        for other in ["asyncify-imports", "asyncify-asserts", "forked", "fork-instrument", "fork-instrument-entry"] {
            assert_eq!(found(other), None, "{other}");
        }
    }
}
