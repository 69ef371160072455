//! All kinds of cases in turn, for a given time.

use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::campaign::{Campaign, Summary};
use crate::generate::{Exceptions, Limits};
use crate::{buffers, bytes, generated_case, smith, ttf};

/// What the cases are made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Programs of our generator.
    Generated,
    /// The same, where exceptions are also caught by reference.
    GeneratedExnref,
    /// The same with exceptions in the legacy encoding.
    GeneratedLegacy,
    /// Modules of wasm-smith.
    Smith,
    /// Modules of Binaryen's generator.
    Ttf,
    /// Mutated bytes of real modules.
    Bytes,
    /// Rewinds from corrupted buffers.
    Buffers,
}

impl Kind {
    /// In the order in which they take turns.
    pub const ALL: [Kind; 7] = [
        Kind::Generated,
        Kind::Smith,
        Kind::GeneratedLegacy,
        Kind::Ttf,
        Kind::Bytes,
        Kind::Buffers,
        Kind::GeneratedExnref,
    ];

    /// Of its findings: their names begin with it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Generated => "generated",
            Kind::GeneratedExnref => "generated-exnref",
            Kind::GeneratedLegacy => "generated-legacy",
            Kind::Smith => "smith",
            Kind::Ttf => "ttf",
            Kind::Bytes => "bytes",
            Kind::Buffers => "buffers",
        }
    }

    /// Of generated programs.
    pub fn limits(self) -> Limits {
        let exceptions = match self {
            Kind::GeneratedExnref => Exceptions::ByReference,
            Kind::GeneratedLegacy => Exceptions::Legacy,
            _ => Exceptions::Modern,
        };
        Limits { exceptions, ..Limits::default() }
    }

    /// Checks the cases of some seeds. `modules` are those whose bytes are mutated.
    pub fn run(self, campaign: &Campaign, modules: &[Vec<u8>], seeds: Range<u64>) -> Result<Summary> {
        let limits = self.limits();
        campaign.run(self.name(), seeds, |seed, tool| match self {
            Kind::Generated | Kind::GeneratedExnref | Kind::GeneratedLegacy => Ok(Some(generated_case(seed, limits))),
            Kind::Smith => smith::case(seed),
            Kind::Ttf => ttf::case(seed, tool),
            Kind::Bytes => Ok(Some(bytes::case(seed, modules))),
            Kind::Buffers => buffers::case(seed),
        })
    }
}

/// The longest turn.
const TURN: Duration = Duration::from_secs(240);

/// Lets all kinds take turns for that time, from that seed on. `modules` is a folder for [`Kind::Bytes`], which is left
/// out without one.
pub fn run(campaign: &Campaign, time: Duration, seed: u64, modules: Option<PathBuf>) -> Result<Vec<(Kind, Summary)>> {
    let modules = modules.map(|folder| bytes::modules(&folder)).transpose()?.unwrap_or_default();
    let kinds = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Bytes || !modules.is_empty());
    let mut turns: Vec<(Kind, u64, Summary)> = kinds.map(|kind| (kind, seed, Summary::default())).collect();
    let ends = Instant::now() + time;
    let turn = TURN.min(time / turns.len() as u32);
    while Instant::now() < ends {
        for (kind, next, total) in &mut turns {
            let left = ends.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let campaign = Campaign { time: Some(turn.min(left)), ..campaign.clone() };
            let summary = kind.run(&campaign, &modules, *next..u64::MAX)?;
            println!("{} from seed {next}: {}", kind.name(), summary.line());
            *next += summary.seeds + campaign.jobs as u64;
            total.add(summary);
        }
    }
    Ok(turns.into_iter().map(|(kind, _, total)| (kind, total)).collect())
}
