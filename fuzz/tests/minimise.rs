//! Findings are made smaller, and stay findings.

use std::fs;

use fork_fuzz::check::{Case, Verdict};
use fork_fuzz::finding;
use fork_fuzz::generate::Limits;
use fork_fuzz::generated_case;
use fork_fuzz::minimise::minimise;
use fork_fuzz::tool::Tool;

/// Takes all functions off the fork path: what the program then does under forks is wrong.
const DEFECT: &str = "--pass-arg=fork-instrument-removelist@*";

#[test]
fn a_finding_becomes_a_small_program_that_is_still_wrong() {
    let tool = Tool::new(&Tool::find(None).unwrap()).unwrap();
    let planted = (0..10).find_map(|seed| {
        let (mut case, choices) = generated_case(seed, Limits::default());
        case.options.push(DEFECT.to_owned());
        match case.check(&tool).unwrap() {
            Verdict::Finding(problem) if case.wasm.len() > 500 => Some((case, choices, problem)),
            _ => None,
        }
    });
    let (case, choices, problem) = planted.expect("a defect shows in one program of ten");
    let folder = std::env::temp_dir().join(format!("fork-fuzz-minimise-{}", std::process::id()));
    let saved = finding::save(&folder, "planted", &case, &choices, &problem).unwrap();
    minimise(&saved, &tool, 50).unwrap();
    let (small, _) = finding::load(&folder.join("planted-small")).unwrap();
    assert!(matches!(small.check(&tool).unwrap(), Verdict::Finding(_)), "{}", small.command());
    assert!(small.wasm.len() * 5 < case.wasm.len(), "{} bytes of {}", small.wasm.len(), case.wasm.len());
    assert_eq!(small.passes, ["--fork-instrument"]);
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_is_saved_is_what_is_loaded() {
    let (case, choices) = generated_case(1, Limits::default());
    let roots = vec![("a\nb\\n\r".to_owned(), Vec::new()), (String::new(), Vec::new())];
    let case = Case { roots, entries: vec!["env.\n*".to_owned()], same_instance: true, ..case };
    let folder = std::env::temp_dir().join(format!("fork-fuzz-finding-{}", std::process::id()));
    let saved = finding::save(&folder, "saved", &case, &choices, "").unwrap();
    let (loaded, loaded_choices) = finding::load(&saved).unwrap();
    assert_eq!(format!("{loaded:?}"), format!("{case:?}"));
    assert_eq!(loaded_choices, choices);
    fs::remove_dir_all(folder).unwrap();
}
