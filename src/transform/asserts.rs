//! The module checks itself, for `asserts`.
//!
//! Where something is wrong, a function that says so by its name sets a code, which `wpk_fork_assert` gives, and traps,
//! so that the name stands in the engine's backtrace (names need `-g`; each such function is also exported, with `wpk_`
//! in front). Checked are: calls that are assumed not to fork, in all functions; functions of the fork path when they are
//! entered; frames when their functions are resumed; the end of unwinding and of rewinding.
//!
//! Not checked are calls with the payload of a legacy catch among their operands, which must stay first in the catch, and
//! tail calls, for which the check of the caller stands.

use std::fmt::Write;

use crate::abi;
use crate::analysis::fork_path::{CallClass, ForkPath, kind};
use crate::ir::{Expr, Function, Kind, Module, Type};
use crate::transform::runtime::{Runtime, quoted};

/// What can be wrong; the number is the code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Assertion {
    /// A call that was assumed not to fork did: a wrong list, or a call that the analysis cannot see.
    CalleeForked = 1,
    /// An import that is no entry returned while the module is unwinding: there are frames of the host on the stack, or
    /// the entry is another one.
    HostForked = 2,
    /// A function of the fork path was called while the module is unwinding, or while it is rewinding, other than
    /// through an export.
    EnteredMeanwhile = 3,
    /// The next frame is another function's than the one that is resumed, or nobody's.
    OtherFrame = 4,
    /// There is no frame for what is resumed.
    NoFrame = 5,
    /// The rewind ended with frames left.
    FramesLeft = 6,
    /// A landing returned while the module is still rewinding: the entry did not end the rewind.
    StillRewinding = 7,
    /// Something is resumed though the module is not rewinding.
    NotRewinding = 8,
}

impl Assertion {
    const ALL: [Assertion; 8] = [
        Assertion::CalleeForked,
        Assertion::HostForked,
        Assertion::EnteredMeanwhile,
        Assertion::OtherFrame,
        Assertion::NoFrame,
        Assertion::FramesLeft,
        Assertion::StillRewinding,
        Assertion::NotRewinding,
    ];

    fn message(self) -> &'static str {
        match self {
            Assertion::CalleeForked => "assert: a call that was assumed not to fork did",
            Assertion::HostForked => "assert: a fork through a host function that is no entry",
            Assertion::EnteredMeanwhile => "assert: a function of the fork path was entered during a fork",
            Assertion::OtherFrame => "assert: frame of another function",
            Assertion::NoFrame => "assert: no frame is left",
            Assertion::FramesLeft => "assert: the rewind ended with frames left",
            Assertion::StillRewinding => "assert: the entry did not end the rewind",
            Assertion::NotRewinding => "assert: resumed though not rewinding",
        }
    }

    /// The internal name of the function that reports it.
    pub fn reporter(self, runtime: &Runtime) -> String {
        runtime.name(self.message())
    }

    /// The text of a check: traps if the condition, an i32, is not zero.
    pub fn check(self, runtime: &Runtime, condition: &str) -> String {
        if !runtime.asserts {
            return String::new();
        }
        format!("(if {condition} (then (call {})))", quoted(&self.reporter(runtime)))
    }
}

/// The text of the functions that report.
pub fn reporters(runtime: &Runtime) -> String {
    let code = quoted(&runtime.name("assert"));
    let mut text = format!("(global {code} (mut i32) (i32.const 0))\n");
    for assertion in Assertion::ALL {
        let (name, number) = (quoted(&assertion.reporter(runtime)), assertion as u32);
        writeln!(
            text,
            "(func {name} (export \"{}{}\") (global.set {code} (i32.const {number})) (unreachable))",
            abi::ASSERTION,
            assertion.message()
        )
        .expect("writing to a string cannot fail");
    }
    let get = quoted(&runtime.name("get_assert"));
    text + &format!("(func {get} (export \"{}\") (result i32) (global.get {code}))\n", abi::ASSERT)
}

/// The reporters, as the text of another module refers to them.
pub fn imports(runtime: &Runtime) -> String {
    if !runtime.asserts {
        return String::new();
    }
    let import =
        |assertion: &Assertion| format!("(import \"\" \"assert\" (func {}))\n", quoted(&assertion.reporter(runtime)));
    Assertion::ALL.iter().map(import).collect()
}

/// Adds the checks of calls and of entries to all functions, before they are planned.
pub fn add<'m>(module: Module<'m>, runtime: &Runtime, path: &ForkPath) {
    if !runtime.asserts {
        return;
    }
    for row in module.functions().iter().filter(|f| !f.imported && !runtime.is_ours(&f.name().text())) {
        check_function(module, runtime, path, module.function_at(row), path.is_on_path(row.name()));
    }
}

fn check_function<'m>(module: Module<'m>, runtime: &Runtime, path: &ForkPath, function: Function<'m>, on_path: bool) {
    let nodes = function.nodes();
    let (mut before, mut has_landing) = (None, false);
    for (row, node) in nodes.iter().enumerate().filter(|(_, n)| n.is_call()) {
        let call: Expr<'m> = node.expr();
        if on_path && path.classify(module, call) != CallClass::CannotFork {
            has_landing = true;
            continue;
        }
        let takes_payload = || nodes[node.first as usize..row].iter().any(|n| n.kind() == Kind::Pop);
        if call.is_return_call() || node.type_() == Type::UNREACHABLE || takes_payload() {
            continue;
        }
        if !on_path && before.is_none() {
            before = Some(function.add_local(Type::I32, "fork.before"));
        }
        let checked = check_call(module, runtime, path, function, call, before);
        match node.parent {
            u32::MAX => function.set_body(checked),
            parent => {
                let parent: Expr<'m> = nodes[parent as usize].expr();
                parent.set_child(node.child, checked);
            }
        }
    }
    if has_landing {
        let build = module.build();
        let state = build.global_get(runtime.state_global(), Type::I32);
        let report = build.call(&Assertion::EnteredMeanwhile.reporter(runtime), &[], Type::NONE);
        let check = build.if_(state, report, None);
        function.set_body(build.block(None, &[check, function.body()], Some(function.results())));
    }
    function.refinalize(module);
}

/// The call, its result kept, followed by the check that the state is what it was: 0 in functions of the fork path, and
/// in others what the local says.
fn check_call<'m>(
    module: Module<'m>,
    runtime: &Runtime,
    path: &ForkPath,
    function: Function<'m>,
    call: Expr<'m>,
    before: Option<u32>,
) -> Expr<'m> {
    let build = module.build();
    let state = || build.global_get(runtime.state_global(), Type::I32);
    let callee = call.describe_call().filter(|c| c.kind == kind::CALL).and_then(|c| c.target());
    let assertion = match callee {
        Some(callee) if path.is_other_import(callee) => Assertion::HostForked,
        _ => Assertion::CalleeForked,
    };
    let report = build.call(&assertion.reporter(runtime), &[], Type::NONE);
    let type_ = call.type_();
    let mut code = Vec::new();
    if let Some(before) = before {
        code.push(build.local_set(before, state()));
    }
    let result = type_.is_concrete().then(|| function.add_local(type_, "fork.result"));
    code.push(result.map_or(call, |local| build.local_set(local, call)));
    let changed = match before {
        Some(before) => build.i32_ne(state(), build.local_get(before, Type::I32)),
        None => state(),
    };
    code.push(build.if_(changed, report, None));
    code.extend(result.map(|local| build.local_get(local, type_)));
    build.block(None, &code, Some(type_))
}
