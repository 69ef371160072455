//! What engines take: modules beyond that are of no use to anybody.
//!
//! Source: the implementation limits of the WebAssembly JavaScript API, which V8 and wasmtime share.

use std::collections::HashMap;

use wasmparser::{BinaryReaderError, CompositeInnerType, FunctionBody, KnownCustom, Name, Parser, Payload, TypeRef};

/// Bytes of a function's body.
pub const BODY: usize = 7_654_321;
/// Locals of a function, parameters included.
pub const LOCALS: usize = 50_000;
/// Functions of a module, imported ones included.
const FUNCTIONS: u32 = 1_000_000;
/// Targets of a `br_table`, the default included. V8's own.
pub const BRANCH_TARGETS: usize = 65_520;

const REMEDY: &str = "compile it with less inlining, or take it off the fork path with \
                      --pass-arg=fork-instrument-removelist@NAME if it is never on the stack in a fork";

/// What in a binary module is beyond the limits, and what to do.
pub fn exceeded(wasm: &[u8]) -> Option<String> {
    find(wasm).unwrap_or_default()
}

fn find(wasm: &[u8]) -> Result<Option<String>, BinaryReaderError> {
    let (mut imported, mut defined) = (0, 0);
    // Parameters by type, and types by defined function.
    let (mut params, mut types) = (Vec::new(), Vec::new());
    // Of functions by index.
    let mut problems: Vec<(u32, String)> = Vec::new();
    let mut names: HashMap<u32, String> = HashMap::new();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    imported += u32::from(matches!(import?.ty, TypeRef::Func(_) | TypeRef::FuncExact(_)));
                }
            }
            Payload::TypeSection(groups) => {
                for group in groups {
                    params.extend(group?.into_types().map(|type_| match type_.composite_type.inner {
                        CompositeInnerType::Func(function) => function.params().len(),
                        _ => 0,
                    }));
                }
            }
            Payload::FunctionSection(list) => types = list.into_iter().collect::<Result<_, _>>()?,
            Payload::CodeSectionEntry(body) => {
                let type_ = types.get(defined as usize).map_or(0, |&index: &u32| index as usize);
                let params = params.get(type_).copied().unwrap_or_default();
                problems.extend(problem(&body, params)?.map(|problem| (imported + defined, problem)));
                defined += 1;
            }
            Payload::CustomSection(section) if !problems.is_empty() => {
                if let KnownCustom::Name(reader) = section.as_known() {
                    names = function_names(reader)?;
                }
            }
            _ => {}
        }
    }
    if imported + defined > FUNCTIONS {
        return Ok(Some(format!(
            "the output has {} functions, and engines take {FUNCTIONS}: put the resume functions into a module of their own with \
             --pass-arg=fork-instrument-resume@FILE, or take functions off the fork path",
            imported + defined
        )));
    }
    Ok(problems.first().map(|(index, problem)| {
        let unnamed = || format!("{index} of the output (its name is told with -g)");
        format!("function {} {problem}: {REMEDY}", names.get(index).cloned().unwrap_or_else(unnamed))
    }))
}

fn problem(body: &FunctionBody<'_>, params: usize) -> Result<Option<String>, BinaryReaderError> {
    let bytes = body.range().len();
    if bytes > BODY {
        return Ok(Some(format!("has a body of {bytes} bytes in the output, and engines take {BODY}")));
    }
    let mut locals = params;
    for group in body.get_locals_reader()? {
        locals += group?.0 as usize;
    }
    Ok((locals > LOCALS).then(|| format!("has {locals} locals in the output, and engines take {LOCALS}")))
}

fn function_names(reader: wasmparser::NameSectionReader<'_>) -> Result<HashMap<u32, String>, BinaryReaderError> {
    let mut names = HashMap::new();
    for part in reader {
        if let Name::Function(map) = part? {
            for naming in map {
                let naming = naming?;
                names.insert(naming.index, naming.name.to_owned());
            }
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leb(mut value: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    fn section(id: u8, contents: &[u8]) -> Vec<u8> {
        [&[id], &leb(contents.len() as u32)[..], contents].concat()
    }

    /// A module with so many imports of functions.
    fn imports(count: u32) -> Vec<u8> {
        let imports = [leb(count), [0, 0, 0, 0].repeat(count as usize)].concat();
        [b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0".to_vec(), section(2, &imports)].concat()
    }

    /// A module with a function of two parameters and so many further locals.
    fn locals(count: u32) -> Vec<u8> {
        let body = [&[1][..], &leb(count), &[0x7f, 0x0b]].concat();
        let code = [&[1][..], &leb(body.len() as u32), &body].concat();
        let types = section(1, &[1, 0x60, 2, 0x7f, 0x7f, 0]);
        [b"\0asm\x01\0\0\0".to_vec(), types, section(3, &[1, 0]), section(10, &code)].concat()
    }

    #[test]
    fn a_million_functions_are_the_most() {
        assert_eq!(exceeded(&imports(1_000_000)), None);
        let problem = exceeded(&imports(1_000_001)).expect("one too many");
        assert!(problem.contains("1000001 functions") && problem.contains("fork-instrument-resume@FILE"), "{problem}");
    }

    #[test]
    fn parameters_count_among_the_locals() {
        assert_eq!(exceeded(&locals(49_998)), None);
        let problem = exceeded(&locals(49_999)).expect("one too many");
        assert!(problem.contains("50001 locals"), "{problem}");
    }
}
