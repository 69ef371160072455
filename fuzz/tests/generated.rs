//! Generated programs do under forks what their originals do without.

use fork_fuzz::campaign::Campaign;
use fork_fuzz::finding;
use fork_fuzz::rotation::Kind;
use fork_fuzz::tool::Tool;

const PROGRAMS: u64 = 1000;

/// `fork-fuzz one` shows a seed again.
fn check(kind: Kind, seeds: std::ops::Range<u64>) {
    let tool = Tool::find(None).unwrap();
    println!("with {}", tool.display());
    let campaign = Campaign { tool, jobs: 2, time: None, findings: finding::default_folder(), options: Vec::new() };
    let programs = seeds.end - seeds.start;
    let summary = kind.run(&campaign, &[], seeds).unwrap();
    summary.print();
    assert_eq!(summary.programs, programs);
    assert!(summary.findings.is_empty(), "fork-fuzz one --seed N shows these seeds: {:?}", summary.findings);
    // Else the generator has become tame.
    assert!(summary.forking * 2 > programs, "only {} programs fork", summary.forking);
    assert!(summary.counts.aborts > 0);
}

#[test]
fn generated_programs_behave_as_their_originals_under_forks() {
    check(Kind::Generated, 0..PROGRAMS);
}
