//! The raw numbers, and the file that holds them.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use wasmtime::{Result, error::Context as _};

use crate::columns::Column;

/// Everything that was measured. Times are in seconds of CPU time unless a name says otherwise, sizes in bytes.
#[derive(Default, Serialize, Deserialize)]
pub struct Results {
    /// Versions of the tools.
    pub versions: BTreeMap<String, String>,
    /// The kind of machine.
    pub machine: BTreeMap<String, String>,
    /// Module, column, metric.
    pub modules: BTreeMap<String, BTreeMap<String, BTreeMap<String, f64>>>,
    /// Bytes by cause: module, part, cause.
    pub causes: BTreeMap<String, BTreeMap<String, BTreeMap<String, f64>>>,
    /// Number of functions, and what the pass took.
    pub scaling: BTreeMap<u64, BTreeMap<String, f64>>,
}

const FILE: &str = "benchmarks.json";

impl Results {
    pub fn read(docs: &Path) -> Result<Results> {
        let path = docs.join(FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).with_context(|| format!("cannot read {}", path.display())),
            Err(_) => Ok(Results::default()),
        }
    }

    pub fn write(&self, docs: &Path) -> Result<()> {
        std::fs::create_dir_all(docs)?;
        Ok(std::fs::write(docs.join(FILE), serde_json::to_string_pretty(self)? + "\n")?)
    }

    pub fn set(&mut self, module: &str, column: Column, metric: &str, value: f64) {
        let columns = self.modules.entry(module.to_owned()).or_default();
        let value = (value * 1e9).round() / 1e9;
        columns.entry(column.key().to_owned()).or_default().insert(metric.to_owned(), value);
    }

    pub fn get(&self, module: &str, column: Column, metric: &str) -> Option<f64> {
        self.modules.get(module)?.get(column.key())?.get(metric).copied()
    }

    /// Relative to the uninstrumented module.
    pub fn ratio(&self, module: &str, column: Column, metric: &str) -> Option<f64> {
        let plain = self.get(module, Column::Plain, metric)?;
        (plain > 0.0).then_some(())?;
        Some(self.get(module, column, metric)? / plain)
    }
}

/// The middle of some numbers.
pub fn median(numbers: &[f64]) -> f64 {
    quantile(numbers, 0.5)
}

/// The number below which a share of all lie.
pub fn quantile(numbers: &[f64], share: f64) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = share * last as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}
