//! What hosts call: exported functions get a wrapper that resumes the outermost saved function while the module is
//! rewinding. Functions that hosts enter through tables test the state on entry, and so do exported ones that the module
//! itself never calls, since nobody else pays for it.
//!
//! ```text
//! (func $root.f (param $x i32) (result i32)
//!   (if (i32.ge_u (global.get $state) (i32.const 2))
//!     (return (call_indirect $resume (result i32) (call $next_function))))
//!   (call $f (local.get $x)))
//! ```

use std::collections::{BTreeMap, BTreeSet};

use crate::abi::{self, State};
use crate::ir::{Expr, Function, Module, Type};
use crate::transform::runtime::Runtime;

/// Functions that hosts can call again to rewind, decided from the fork path and the options.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Roots {
    /// Exported functions of the fork path that get a wrapper: function name → export names.
    pub wrapped: BTreeMap<String, Vec<String>>,
    /// Functions of the fork path that test the state on entry.
    pub tested: BTreeSet<String>,
    /// Result types for which `wpk_fork_resume` is exported, ascending.
    pub resume_exports: Vec<Type>,
}

/// Adds wrappers, tests on entry, and the `wpk_fork_resume` exports.
pub fn add<'m>(module: Module<'m>, runtime: &Runtime, roots: &Roots) {
    for (name, exports) in &roots.wrapped {
        let function = module.function(name);
        let wrapper_name = runtime.name(&format!("root.{name}"));
        let wrapper = module.add_function_like(function, &wrapper_name);
        let build = module.build();
        let arguments: Vec<Expr<'m>> =
            (0..function.num_params()).map(|i| build.local_get(i, wrapper.local_types()[i as usize])).collect();
        let call = build.call(name, &arguments, function.results());
        wrapper.set_body(resume_first(module, runtime, wrapper, call));
        for export in exports {
            module.retarget_export(export, &wrapper_name);
        }
    }
    for name in &roots.tested {
        let function = module.function(name);
        function.set_body(resume_first(module, runtime, function, function.body()));
    }
    for &results in &roots.resume_exports {
        let results = results.top();
        let keywords: Vec<&str> = results.components().into_iter().filter_map(Type::keyword).collect();
        let export = abi::resume_export(&keywords);
        let name = runtime.name(export.trim_start_matches("wpk_fork_"));
        let build = module.build();
        let state = build.global_get(runtime.state_global(), Type::I32);
        let is_other = build.i32_ne(state, build.i32(State::Rewinding as u32));
        let mut code = vec![runtime.call_outermost_frame(build, results)];
        // With assertions it tells what is wrong.
        if !runtime.asserts {
            code.insert(0, build.if_(is_other, build.unreachable(), None));
        }
        module.add_function(&name, Type::NONE, results, build.block(None, &code, Some(results)));
        module.export_function(&export, &name);
    }
}

/// The body of `function`, which resumes what was saved if the module is rewinding.
fn resume_first<'m>(module: Module<'m>, runtime: &Runtime, function: Function<'m>, body: Expr<'m>) -> Expr<'m> {
    let build = module.build();
    let results = function.results();
    let state = build.global_get(runtime.state_global(), Type::I32);
    let rewinding = build.i32_ge_u(state, build.i32(State::Rewinding as u32));
    let next = function.cast(module, runtime.call_outermost_frame(build, results), results);
    let resume = match results {
        Type::NONE => build.block(None, &[next, build.return_(None)], None),
        _ => build.return_(Some(next)),
    };
    let guard = build.if_(rewinding, resume, None);
    build.block(None, &[guard, body], Some(results))
}
