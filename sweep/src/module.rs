//! What the sweep looks at in a module: imports, exports, calls of imports, and the features that it uses.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use anyhow::{Result, bail};
use wasmparser::{BinaryReader, Encoding, ExternalKind, Operator, Parser, Payload, TypeRef, Validator, WasmFeatures};

/// An imported function.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImportedFunction {
    pub module: String,
    pub name: String,
    /// Direct calls of it in the module.
    pub calls: usize,
}

impl ImportedFunction {
    pub fn path(&self) -> String {
        format!("{}.{}", self.module, self.name)
    }
}

/// A module as the sweep sees it.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub functions: Vec<ImportedFunction>,
    /// All imports, as `module.name` and kind.
    pub imports: BTreeSet<(String, &'static str)>,
    /// All exports: name → kind.
    pub exports: BTreeMap<String, &'static str>,
    /// Defined functions.
    pub defined: u32,
    /// Names in the section `target_features`, those that are used.
    pub target_features: Vec<String>,
    /// Whether it is a side module of dynamic linking.
    pub is_side_module: bool,
    pub has_memory: bool,
}

/// Reads a module. Call [`validate`] first: nothing is checked here.
pub fn summarize(wasm: &[u8]) -> Result<Summary> {
    let mut summary = Summary::default();
    let mut bodies: Vec<Range<usize>> = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::Version { encoding: Encoding::Component, .. } => bail!("it is a component, not a module"),
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import?;
                    let kind = match import.ty {
                        TypeRef::Func(_) | TypeRef::FuncExact(_) => "function",
                        TypeRef::Table(_) => "table",
                        TypeRef::Memory(_) => "memory",
                        TypeRef::Global(_) => "global",
                        TypeRef::Tag(_) => "tag",
                    };
                    summary.has_memory |= kind == "memory";
                    summary.imports.insert((format!("{}.{}", import.module, import.name), kind));
                    if kind == "function" {
                        let (module, name) = (import.module.to_owned(), import.name.to_owned());
                        summary.functions.push(ImportedFunction { module, name, calls: 0 });
                    }
                }
            }
            Payload::MemorySection(section) => summary.has_memory |= section.count() > 0,
            Payload::FunctionSection(section) => summary.defined = section.count(),
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export?;
                    let kind = match export.kind {
                        ExternalKind::Func | ExternalKind::FuncExact => "function",
                        ExternalKind::Table => "table",
                        ExternalKind::Memory => "memory",
                        ExternalKind::Global => "global",
                        ExternalKind::Tag => "tag",
                    };
                    summary.exports.insert(export.name.to_owned(), kind);
                }
            }
            Payload::CodeSectionEntry(body) => {
                bodies.push(body.range());
                for operator in body.get_operators_reader()? {
                    if let Operator::Call { function_index } | Operator::ReturnCall { function_index } = operator?
                        && let Some(function) = summary.functions.get_mut(function_index as usize)
                    {
                        function.calls += 1;
                    }
                }
            }
            Payload::CustomSection(section) => match section.name() {
                "target_features" => summary.target_features = target_features(section.data()).unwrap_or_default(),
                "dylink.0" | "dylink" => summary.is_side_module = true,
                _ => {}
            },
            _ => {}
        }
    }
    Ok(summary)
}

/// A count, then for each feature a prefix byte (`+` used, `-` not allowed) and a name.
fn target_features(data: &[u8]) -> Result<Vec<String>> {
    let mut reader = BinaryReader::new(data, 0);
    let mut names = Vec::new();
    for _ in 0..reader.read_var_u32()? {
        let prefix = reader.read_u8()?;
        let name = reader.read_string()?;
        if prefix == b'+' {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// A feature as Binaryen and wasmparser name it.
pub struct Feature {
    /// `wasm-opt --enable-FLAG`.
    pub flag: &'static str,
    bits: WasmFeatures,
}

/// Features that a sweep tells apart; the ones that Binaryen assumes anyway are not among them.
pub const FEATURES: &[Feature] = &[
    Feature { flag: "nontrapping-float-to-int", bits: WasmFeatures::SATURATING_FLOAT_TO_INT },
    Feature { flag: "simd", bits: WasmFeatures::SIMD },
    Feature { flag: "bulk-memory", bits: WasmFeatures::BULK_MEMORY },
    Feature { flag: "exception-handling", bits: WasmFeatures::EXCEPTIONS.union(WasmFeatures::LEGACY_EXCEPTIONS) },
    Feature { flag: "tail-call", bits: WasmFeatures::TAIL_CALL },
    Feature { flag: "reference-types", bits: WasmFeatures::REFERENCE_TYPES },
    Feature { flag: "multivalue", bits: WasmFeatures::MULTI_VALUE },
    Feature { flag: "gc", bits: WasmFeatures::GC.union(WasmFeatures::FUNCTION_REFERENCES) },
    Feature { flag: "memory64", bits: WasmFeatures::MEMORY64 },
    Feature { flag: "relaxed-simd", bits: WasmFeatures::RELAXED_SIMD },
    Feature { flag: "extended-const", bits: WasmFeatures::EXTENDED_CONST },
    Feature { flag: "threads", bits: WasmFeatures::THREADS },
    Feature { flag: "multimemory", bits: WasmFeatures::MULTI_MEMORY },
    Feature { flag: "custom-page-sizes", bits: WasmFeatures::CUSTOM_PAGE_SIZES },
    Feature { flag: "wide-arithmetic", bits: WasmFeatures::WIDE_ARITHMETIC },
];

fn everything() -> WasmFeatures {
    FEATURES.iter().fold(WasmFeatures::default(), |all, feature| all | feature.bits) - WasmFeatures::COMPONENT_MODEL
}

/// Checks a module, with all features that the sweep knows.
pub fn validate(wasm: &[u8]) -> Result<()> {
    Validator::new_with_features(everything()).validate_all(wasm)?;
    Ok(())
}

/// Flags of the features that the module cannot do without. It must be valid.
pub fn used_features(wasm: &[u8]) -> Vec<&'static str> {
    let is_needed = |bits: WasmFeatures| {
        // What builds on the feature goes too, or the combination is refused for that alone.
        let mut rest = everything() - bits;
        if bits.contains(WasmFeatures::REFERENCE_TYPES) {
            rest -= WasmFeatures::FUNCTION_REFERENCES | WasmFeatures::GC | WasmFeatures::GC_TYPES;
        }
        if bits.contains(WasmFeatures::SIMD) {
            rest -= WasmFeatures::RELAXED_SIMD;
        }
        Validator::new_with_features(rest).validate_all(wasm).is_err()
    };
    FEATURES.iter().filter(|feature| is_needed(feature.bits)).map(|feature| feature.flag).collect()
}

/// Checks that a module is valid with these features and those that every engine has.
pub fn validate_with(wasm: &[u8], flags: &[&str]) -> Result<()> {
    let missing = FEATURES.iter().filter(|feature| !flags.contains(&feature.flag));
    let features = missing.fold(everything(), |rest, feature| rest - feature.bits);
    Validator::new_with_features(features).validate_all(wasm)?;
    Ok(())
}
