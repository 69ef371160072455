//! Exports for all functions and tags of a module, so that these can be found in another instance.

use std::ops::Range;

use wasmparser::{ExternalKind, Parser, Payload, TypeRef};
use wasmtime::Result;

/// What the names of these exports begin with; an index follows.
const FUNCTION: &str = "fork_host.function.";
const TAG: &str = "fork_host.tag.";

const EXPORTS: u8 = 7;
/// Sections that stand before that of the exports: types, imports, functions, tables, memories, tags, globals.
const BEFORE: [u8; 7] = [1, 2, 3, 4, 5, 13, 6];

/// The module, given in binary or text form, with an export for each of its functions and tags.
pub(crate) fn functions_and_tags(wasm: &[u8]) -> Result<Vec<u8>> {
    let wasm = &*wat::parse_bytes(wasm)?;
    let mut sections: Vec<(u8, Range<usize>)> = Vec::new();
    let (mut functions, mut tags, mut exports) = (0, 0, Vec::new());
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload?;
        sections.extend(payload.as_section());
        match payload {
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    match import?.ty {
                        TypeRef::Func(_) | TypeRef::FuncExact(_) => functions += 1,
                        TypeRef::Tag(_) => tags += 1,
                        _ => {}
                    }
                }
            }
            Payload::FunctionSection(section) => functions += section.count(),
            Payload::TagSection(section) => tags += section.count(),
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export?;
                    exports.push((export.name.to_owned(), export.kind, export.index));
                }
            }
            _ => {}
        }
    }
    exports.extend((0..functions).map(|index| (format!("{FUNCTION}{index}"), ExternalKind::Func, index)));
    exports.extend((0..tags).map(|index| (format!("{TAG}{index}"), ExternalKind::Tag, index)));
    let place = sections.iter().rposition(|(id, _)| BEFORE.contains(id)).map_or(0, |last| last + 1);
    let mut out = wasm[..8].to_vec();
    for (at, (id, range)) in sections.iter().enumerate() {
        if at == place {
            push_section(&mut out, EXPORTS, &encode(&exports));
        }
        if *id != EXPORTS {
            push_section(&mut out, *id, &wasm[range.clone()]);
        }
    }
    if place == sections.len() {
        push_section(&mut out, EXPORTS, &encode(&exports));
    }
    Ok(out)
}

fn encode(exports: &[(String, ExternalKind, u32)]) -> Vec<u8> {
    let mut out = Vec::new();
    push_leb(&mut out, exports.len());
    for (name, kind, index) in exports {
        push_leb(&mut out, name.len());
        out.extend(name.as_bytes());
        out.push(match kind {
            ExternalKind::Func | ExternalKind::FuncExact => 0,
            ExternalKind::Table => 1,
            ExternalKind::Memory => 2,
            ExternalKind::Global => 3,
            ExternalKind::Tag => 4,
        });
        push_leb(&mut out, *index as usize);
    }
    out
}

fn push_section(out: &mut Vec<u8>, id: u8, contents: &[u8]) {
    out.push(id);
    push_leb(out, contents.len());
    out.extend(contents);
}

fn push_leb(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
