//! What resumes a resume function again whose frame did not fit.
//!
//! A frame that does not fit a second time is that of the function which was resumed again. Then it must not be nested in
//! another call: programs may try to fork forever. The function knows by a flag that it took when it was entered, and
//! returns to what resumed it, which tries again.
//!
//! ```text
//! (func $retry_i32 (param $again i32) (result i32)
//!   (if (local.get $again) (then (global.set $retry (i32.const 1)) (return (i32.const 0))))
//!   (block $done (result i32)
//!     (loop $tries
//!       (global.set $retry (i32.const 0))
//!       (global.set $retried (i32.const 1))      ;; what pops the next header takes that back, or the next fork
//!       (drop (br_if $done (call_indirect $resume (result i32) …) (i32.eqz (global.get $retry))))
//!       (br $tries))))
//! ```

use std::collections::BTreeSet;

use crate::ir::{Expr, Module, Type};
use crate::transform::runtime::Runtime;

/// Adds the function for each of these results, of resume functions that call it.
pub fn add(module: Module<'_>, runtime: &Runtime, results: &BTreeSet<Type>) {
    for &results in results {
        let (name, body) = (runtime.retry_helper(results), body(module, runtime, results));
        module.add_function(&name, Type::I32, results.top(), body);
    }
}

fn body<'m>(module: Module<'m>, runtime: &Runtime, results: Type) -> Expr<'m> {
    const DONE: &str = "done";
    const TRIES: &str = "tries";
    let build = module.build();
    let (retry, retried) = (runtime.retry_global(), runtime.retried_global());
    let default = || results.is_concrete().then(|| runtime.default_results(build, results));
    let set = |global: &str, value: u32| build.global_set(global, build.i32(value));
    let again = build.local_get(0, Type::I32);
    let give_up = build.block(None, &[set(&retry, 1), build.return_(default())], None);
    let next = runtime.call_next_frame(build, results);
    let is_done = build.i32_eqz(build.global_get(&retry, Type::I32));
    let mut tries = vec![set(&retry, 0), set(&retried, 1)];
    if results.is_concrete() {
        tries.push(build.drop(build.break_(DONE, Some(is_done), Some(next))));
    } else {
        tries.extend([next, build.break_(DONE, Some(is_done), None)]);
    }
    tries.push(build.break_(TRIES, None, None));
    let tries = build.loop_(TRIES, build.block(None, &tries, None));
    let code = [build.if_(again, give_up, None), build.block(Some(DONE), &[tries], Some(results.top()))];
    build.block(None, &code, Some(results.top()))
}
