//! Findings on disk: a folder each, with the module, the options, and what is wrong.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use fork_host::replay::Value;

use crate::check::Case;

/// Where findings go; not under version control.
pub fn default_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("findings")
}

/// Writes a finding into a folder of its own.
pub fn save(folder: &Path, name: &str, case: &Case, choices: &[u32], problem: &str) -> Result<PathBuf> {
    let folder = folder.join(name);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("module.wasm"), &case.wasm)?;
    if let Ok(text) = wasmprinter::print_bytes(&case.wasm) {
        fs::write(folder.join("module.wat"), text)?;
    }
    let lines = |lines: &[String]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    fs::write(folder.join("passes"), lines(&case.passes))?;
    fs::write(folder.join("options"), lines(&case.options))?;
    let mut roots = String::new();
    for (name, args) in &case.roots {
        let args: Vec<String> = args.iter().map(argument).collect();
        roots += &format!("{}\t{}\n", args.join(" "), on_one_line(name));
    }
    fs::write(folder.join("roots"), roots)?;
    let entries: Vec<String> = case.entries.iter().map(|name| on_one_line(name)).collect();
    fs::write(folder.join("entries"), lines(&entries))?;
    fs::write(folder.join("seed"), format!("{}\n", case.seed))?;
    let mut copy = case.clone();
    let set = flags(&mut copy).into_iter().filter(|(_, flag)| **flag);
    fs::write(folder.join("flags"), set.map(|(name, _)| format!("{name}\n")).collect::<String>())?;
    let choices: Vec<String> = choices.iter().map(u32::to_string).collect();
    fs::write(folder.join("choices"), choices.join(" "))?;
    fs::write(folder.join("problem.txt"), format!("{}\n\n{problem}\n", case.command()))?;
    Ok(folder)
}

/// Reads a finding: the case, and the choices of the generator if it was generated.
pub fn load(folder: &Path) -> Result<(Case, Vec<u32>)> {
    let read = |name: &str| fs::read_to_string(folder.join(name)).with_context(|| format!("{name} of a finding"));
    let lines = |name: &str| -> Result<Vec<String>> { Ok(read(name)?.lines().map(str::to_owned).collect()) };
    let roots = lines("roots")?.into_iter().map(|line| {
        let (args, name) = line.split_once('\t').context("a root without a tab")?;
        let args = args.split_whitespace().map(parse_argument).collect::<Result<_>>()?;
        Ok((from_one_line(name), args))
    });
    let mut case = Case {
        wasm: fs::read(folder.join("module.wasm"))?,
        passes: lines("passes")?,
        options: lines("options")?,
        roots: roots.collect::<Result<_>>()?,
        entries: lines("entries")?.iter().map(|name| from_one_line(name)).collect(),
        seed: read("seed")?.trim().parse()?,
        ..Case::default()
    };
    let set = lines("flags")?;
    flags(&mut case).into_iter().for_each(|(name, flag)| *flag = set.iter().any(|set| set == name));
    let choices = read("choices")?.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    Ok((case, choices))
}

fn flags(case: &mut Case) -> [(&'static str, &mut bool); 7] {
    [
        ("plain imports", &mut case.plain_imports),
        ("forks can fail", &mut case.forks_can_fail),
        ("same instance", &mut case.same_instance),
        ("separate", &mut case.separate),
        ("corrupts", &mut case.corrupts),
        ("by reference", &mut case.by_reference),
        ("legacy", &mut case.legacy),
    ]
}

/// A name, which may hold any character, as part of one line.
fn on_one_line(name: &str) -> String {
    name.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r")
}

fn from_one_line(text: &str) -> String {
    let mut name = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        name.push(match c {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some('r') => '\r',
                _ => '\\',
            },
            c => c,
        });
    }
    name
}

fn argument(value: &Value) -> String {
    match value {
        Value::I32(number) => format!("i32:{number}"),
        Value::I64(number) => format!("i64:{number}"),
        Value::F32(bits) => format!("f32:{bits}"),
        Value::F64(bits) => format!("f64:{bits}"),
        Value::V128(bits) => format!("v128:{bits}"),
        _ => "null:0".to_owned(),
    }
}

fn parse_argument(text: &str) -> Result<Value> {
    let (ty, number) = text.split_once(':').context("an argument without a type")?;
    Ok(match ty {
        "i32" => Value::I32(number.parse()?),
        "i64" => Value::I64(number.parse()?),
        "f32" => Value::F32(number.parse()?),
        "f64" => Value::F64(number.parse()?),
        "v128" => Value::V128(number.parse()?),
        _ => Value::Null,
    })
}
