//! What came out for each module: a line on the terminal, a row of the table.

use std::fmt;

/// What became of one module.
pub enum Outcome {
    /// Instrumented, and valid.
    Ok(Instrumented),
    /// The pass, or Binaryen without it, says why it cannot.
    Refused(String),
    /// There is nothing to instrument, or the input is no valid module.
    Skipped(String),
    /// A crash, an invalid module, a lost export, or the time limit.
    Wrong(String),
}

pub struct Instrumented {
    pub size: u64,
    /// Processor time in seconds and peak memory in bytes, of a run with the pass.
    pub cpu: f64,
    pub peak: u64,
    /// The same of a run that only reads and writes the module.
    pub plain_cpu: f64,
    pub plain_peak: u64,
    /// Functions of the fork path.
    pub on_path: usize,
    pub warnings: Vec<String>,
}

impl Instrumented {
    /// Times the processor time of reading and writing.
    fn time_ratio(&self) -> f64 {
        self.cpu / self.plain_cpu.max(0.01)
    }

    fn memory_ratio(&self) -> f64 {
        self.peak as f64 / self.plain_peak.max(1) as f64
    }
}

/// A module and its outcome.
pub struct Row {
    pub module: String,
    pub size: u64,
    pub functions: u32,
    pub features: Vec<&'static str>,
    pub entry: String,
    pub outcome: Outcome,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { module, size, functions, entry, .. } = self;
        match &self.outcome {
            Outcome::Ok(done) => {
                write!(
                    f,
                    "ok       {module}: {entry}: {size} -> {} bytes ({:.2}), {} of {functions} functions on the fork \
                     path, {:.1} s of processor time ({:.1}), {} MB ({:.1})",
                    done.size,
                    done.size as f64 / *size as f64,
                    done.on_path,
                    done.cpu,
                    done.time_ratio(),
                    done.peak >> 20,
                    done.memory_ratio(),
                )?;
                done.warnings.iter().try_for_each(|warning| write!(f, "\n         {warning}"))
            }
            Outcome::Refused(why) => write!(f, "refused  {module}: {entry}: {why}"),
            Outcome::Skipped(why) => write!(f, "skipped  {module}: {why}"),
            Outcome::Wrong(why) => write!(f, "WRONG    {module}: {entry}: {why}"),
        }
    }
}

/// The table of all modules, in Markdown.
pub fn markdown(rows: &[Row]) -> String {
    let mut text = String::from(
        "| module | features | entry | result | size, bytes | instrumented | functions on the path | CPU seconds | time | MB | memory |\n\
         | --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for row in rows {
        let (result, figures) = match &row.outcome {
            Outcome::Ok(done) => {
                let warnings: Vec<String> = done.warnings.iter().map(|w| cell(w)).collect();
                let result = if warnings.is_empty() { "ok".into() } else { format!("ok; {}", warnings.join("; ")) };
                let figures = format!(
                    "{:.2} | {} of {} | {:.1} | {:.1} | {} | {:.1}",
                    done.size as f64 / row.size as f64,
                    done.on_path,
                    row.functions,
                    done.cpu,
                    done.time_ratio(),
                    done.peak >> 20,
                    done.memory_ratio()
                );
                (result, figures)
            }
            Outcome::Refused(why) => (format!("refused: {}", cell(why)), " | | | | | ".into()),
            Outcome::Skipped(why) => (format!("skipped: {}", cell(why)), " | | | | | ".into()),
            Outcome::Wrong(why) => (format!("**wrong**: {}", cell(why)), " | | | | | ".into()),
        };
        let entry = if row.entry.is_empty() { String::new() } else { format!("`{}`", row.entry) };
        text += &format!(
            "| {} | {} | {entry} | {result} | {} | {figures} |\n",
            row.module,
            row.features.join(", "),
            row.size
        );
    }
    text
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
