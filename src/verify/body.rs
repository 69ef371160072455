//! A function's code as a flat list of instructions of a stack machine, so that it can be started anywhere and run
//! without recursion.
//!
//! One value is one entry of the stack, a tuple too. Structure is gone: branches name the instruction that they go to
//! and the height to which the stack is cut. Code after something that does not return is listed, with heights that
//! mean nothing; nobody gets there.

use std::collections::HashMap;

use crate::ir::{Code, CodeRow, Function, Kind, Name, Type};

/// Where a branch goes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub at: u32,
    /// The height of the stack there, the value that the branch carries left out.
    pub height: u32,
    pub carries: bool,
}

/// What an instruction does.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    Const(u64),
    Null,
    LocalGet(u32),
    LocalSet(u32),
    LocalTee(u32),
    GlobalGet(Name),
    GlobalSet(Name),
    Jump(Target),
    /// `br_if`: pops the condition; a carried value stays when the branch is not taken.
    JumpIf(Target),
    /// The start of an `if`: pops the condition and goes there if it is zero.
    JumpUnless(Target),
    /// A branch on what only an engine knows, with the operand that stays when it is not taken.
    JumpPerhaps(Target),
    /// `br_table`: first and number of [`Body::targets`].
    Table(u32, u32),
    Load {
        memory: Name,
        offset: u64,
        bytes: u32,
        signed: bool,
        type_: Type,
        /// The global that its address without the offset is, or is taken from.
        at: Option<Name>,
    },
    Store {
        memory: Name,
        offset: u64,
        bytes: u32,
        /// Likewise.
        at: Option<Name>,
    },
    Call {
        function: Name,
        call: Call,
    },
    CallIndirect {
        table: Name,
        call: Call,
    },
    CallRef(Call),
    /// A unary or binary operation on numbers, with its operands.
    Fold(u32),
    Select,
    Drop,
    Return(bool),
    Unreachable,
    TupleMake(u32),
    TupleExtract(u32),
    /// The value as another type.
    Cast,
    /// Anything else.
    Other {
        operands: u32,
        result: bool,
    },
}

/// The shape of a call.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub arguments: u32,
    pub result: bool,
    pub tail: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Instruction {
    pub op: Op,
    /// The expression's row in [`Body::code`].
    pub row: u32,
}

/// A place in a body: an instruction and the height of the stack before it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Place {
    pub at: u32,
    pub height: u32,
}

/// Code whose exceptions are caught.
pub struct Scope {
    pub parent: Option<u32>,
    /// Where exceptions go from there.
    pub handlers: Vec<Target>,
    /// They go no further out.
    pub catches_all: bool,
}

/// A function, flat.
pub struct Body {
    pub code: Code,
    pub instructions: Vec<Instruction>,
    pub targets: Vec<Target>,
    /// Instructions that branches go to.
    pub is_target: Vec<bool>,
    /// Bodies of `try`s, each after those around it.
    pub scopes: Vec<Scope>,
    /// The innermost of them, for each instruction.
    pub scope_of: Vec<Option<u32>>,
    /// For each row: before its operands.
    pub starts: Vec<Place>,
    /// For each call, by row: after it without its result.
    pub calls: HashMap<u32, Place>,
    /// For each `if`, block and loop, by row: after it, without its result.
    pub ends: HashMap<u32, Place>,
    pub locals: Vec<Type>,
    pub params: u32,
    pub results: Type,
    /// Locals that only ever hold an address that is taken from a global.
    addresses: HashMap<u32, Name>,
}

impl Body {
    pub fn read(function: Function<'_>) -> Body {
        let code = function.code();
        let body = Body {
            addresses: code.addresses(function.num_params()),
            code,
            instructions: Vec::new(),
            targets: Vec::new(),
            is_target: Vec::new(),
            scopes: Vec::new(),
            scope_of: Vec::new(),
            starts: Vec::new(),
            calls: HashMap::new(),
            ends: HashMap::new(),
            locals: function.local_types(),
            params: function.num_params(),
            results: function.results(),
        };
        Flattener::new(body).flatten()
    }

    pub fn row(&self, row: u32) -> &CodeRow {
        &self.code.rows[row as usize]
    }

    /// The global that the address of an access to memory is, or is taken from.
    pub fn global_at(&self, access: u32) -> Option<Name> {
        self.code.global_at(access, &self.addresses)
    }
}

/// A label that can be branched to.
struct Label {
    name: Option<Name>,
    /// Known from the start for loops.
    start: Option<u32>,
    height: u32,
    carries: bool,
    /// Instructions, and entries of `targets`, that go to its end.
    waiting: Vec<Waiting>,
}

enum Waiting {
    Instruction(u32),
    Target(u32),
    /// A scope, and one of its handlers.
    Handler(u32, u32),
}

/// Steps of the traversal that are still to be done.
enum Step {
    Visit(u32),
    /// The instruction of the row, once its operands are there. The height is that before the operands.
    Emit(u32, u32),
    /// The end of a block or loop; the height is that before it.
    EndLabel(u32, u32),
    /// After an `if`'s condition.
    Then(u32, u32),
    /// After an arm: the jump past the other arm, and the arm's start.
    Else(u32, u32),
    EndIf(u32, u32),
    /// After the body of a legacy `try`, which was a scope.
    Catches(u32, u32, u32),
    /// The start of a catch body of a scope.
    Handler(u32, u32),
    EndScope,
    /// After a catch body.
    Catch(u32, u32),
    EndTry(u32, u32),
}

struct Flattener {
    body: Body,
    children: Vec<Vec<u32>>,
    labels: Vec<Label>,
    steps: Vec<Step>,
    height: u32,
    /// The innermost one that is open.
    scope: Option<u32>,
    /// Jumps that wait for the end of the `if`s and `try`s that are open.
    ends: Vec<Vec<u32>>,
}

impl Flattener {
    fn new(mut body: Body) -> Flattener {
        body.starts = vec![Place { at: 0, height: 0 }; body.code.rows.len()];
        let mut children = vec![Vec::new(); body.code.rows.len()];
        for (i, row) in body.code.rows.iter().enumerate() {
            if let Some(parent) = row.parent_row() {
                children[parent].push(i as u32);
            }
        }
        Flattener { body, children, labels: Vec::new(), steps: Vec::new(), height: 0, scope: None, ends: Vec::new() }
    }

    fn flatten(mut self) -> Body {
        let root = self.body.code.rows.len() as u32 - 1;
        self.steps.push(Step::Visit(root));
        while let Some(step) = self.steps.pop() {
            self.step(step);
        }
        let returns = self.body.row(root).type_().is_concrete();
        self.emit(Op::Return(returns), root);
        let end = self.body.instructions.len();
        self.body.is_target = vec![false; end];
        let direct = self.body.instructions.iter().filter_map(|i| match i.op {
            Op::Jump(t) | Op::JumpIf(t) | Op::JumpUnless(t) | Op::JumpPerhaps(t) => Some(t.at),
            _ => None,
        });
        let handlers = self.body.scopes.iter().flat_map(|scope| &scope.handlers).map(|h| h.at);
        let all: Vec<u32> = direct.chain(self.body.targets.iter().map(|t| t.at)).chain(handlers).collect();
        for at in all {
            self.body.is_target[at as usize] = true;
        }
        self.body
    }

    fn here(&self) -> u32 {
        self.body.instructions.len() as u32
    }

    fn start_scope(&mut self, catches_all: bool) -> u32 {
        let scope = self.body.scopes.len() as u32;
        self.body.scopes.push(Scope { parent: self.scope, handlers: Vec::new(), catches_all });
        self.scope = Some(scope);
        scope
    }

    fn end_scope(&mut self) {
        let scope = self.scope.expect("a scope is open");
        self.scope = self.body.scopes[scope as usize].parent;
    }

    fn emit(&mut self, op: Op, row: u32) -> u32 {
        self.body.instructions.push(Instruction { op, row });
        self.body.scope_of.push(self.scope);
        self.here() - 1
    }

    fn set_target(&mut self, instruction: u32, at: u32) {
        match &mut self.body.instructions[instruction as usize].op {
            Op::Jump(t) | Op::JumpIf(t) | Op::JumpUnless(t) | Op::JumpPerhaps(t) => t.at = at,
            other => unreachable!("{other:?} does not branch"),
        }
    }

    /// The end of an `if`, block or loop that started at some height.
    fn end(&mut self, row: u32, before: u32) {
        let place = Place { at: self.here(), height: before };
        self.body.ends.insert(row, place);
        self.settle(row, before);
    }

    /// The height after an expression that started at some height.
    fn settle(&mut self, row: u32, before: u32) {
        self.height = before + u32::from(self.body.row(row).type_().is_concrete());
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Visit(row) => self.visit(row),
            Step::Emit(row, before) => {
                self.emit_row(row, before);
                self.settle(row, before);
            }
            Step::EndLabel(row, before) => {
                let label = self.labels.pop().expect("every label was opened");
                let at = self.here();
                for waiting in label.waiting {
                    match waiting {
                        Waiting::Instruction(i) => self.set_target(i, at),
                        Waiting::Target(i) => self.body.targets[i as usize].at = at,
                        Waiting::Handler(scope, i) => self.body.scopes[scope as usize].handlers[i as usize].at = at,
                    }
                }
                self.end(row, before);
            }
            Step::Then(row, before) => {
                let target = Target { at: 0, height: before, carries: false };
                let jump = self.emit(Op::JumpUnless(target), row);
                self.height = before;
                let arms = self.children[row as usize].clone();
                if let Some(&otherwise) = arms.get(2) {
                    self.steps.extend([Step::EndIf(row, before), Step::Visit(otherwise), Step::Else(row, jump)]);
                } else {
                    self.ends.push(vec![jump]);
                    self.steps.push(Step::EndIf(row, before));
                }
                self.steps.push(Step::Visit(arms[1]));
            }
            Step::Else(row, jump) => {
                let before = self.if_height(jump);
                let end = self.emit(Op::Jump(self.end_of(row, before)), row);
                self.ends.push(vec![end]);
                let here = self.here();
                self.set_target(jump, here);
                self.height = before;
            }
            Step::EndIf(row, before) | Step::EndTry(row, before) => {
                let here = self.here();
                for jump in self.ends.pop().expect("the node is open") {
                    self.set_target(jump, here);
                }
                self.end(row, before);
            }
            Step::Catches(row, before, scope) => {
                self.end_scope();
                let end = self.emit(Op::Jump(self.end_of(row, before)), row);
                self.ends.push(vec![end]);
                self.steps.push(Step::EndTry(row, before));
                for &catch in self.children[row as usize].clone()[1..].iter().rev() {
                    self.steps.extend([Step::Catch(row, before), Step::Visit(catch), Step::Handler(scope, before)]);
                }
            }
            Step::Handler(scope, before) => {
                self.height = before;
                let handler = Target { at: self.here(), height: before, carries: false };
                self.body.scopes[scope as usize].handlers.push(handler);
            }
            Step::EndScope => self.end_scope(),
            Step::Catch(row, before) => {
                let end = self.emit(Op::Jump(self.end_of(row, before)), row);
                self.ends.last_mut().expect("the try is open").push(end);
            }
        }
    }

    fn if_height(&self, jump: u32) -> u32 {
        match self.body.instructions[jump as usize].op {
            Op::JumpUnless(target) => target.height,
            other => unreachable!("{other:?} starts no if"),
        }
    }

    /// The end of an `if` or `try`, which is not known yet.
    fn end_of(&self, row: u32, before: u32) -> Target {
        Target { at: 0, height: before, carries: self.body.row(row).type_().is_concrete() }
    }

    fn visit(&mut self, row: u32) {
        let before = self.height;
        let data = *self.body.row(row);
        self.body.starts[row as usize] = Place { at: self.here(), height: before };
        match data.kind() {
            kind @ (Kind::Block | Kind::Loop) => {
                let is_loop = kind == Kind::Loop;
                self.labels.push(Label {
                    name: data.named(),
                    start: is_loop.then(|| self.here()),
                    height: before,
                    carries: !is_loop && data.type_().is_concrete(),
                    waiting: Vec::new(),
                });
                self.steps.push(Step::EndLabel(row, before));
                self.visit_children(row);
            }
            Kind::If => {
                let condition = self.children[row as usize][0];
                self.steps.extend([Step::Then(row, before), Step::Visit(condition)]);
            }
            Kind::Try => {
                let body = self.children[row as usize][0];
                let scope = self.start_scope(data.catches_all);
                self.steps.extend([Step::Catches(row, before, scope), Step::Visit(body)]);
            }
            Kind::TryTable => {
                let labels: Vec<Name> = self.body.code.labels(&data).collect();
                let scope = self.start_scope(data.catches_all);
                for (i, name) in labels.into_iter().enumerate() {
                    let handler = self.target(name, Waiting::Handler(scope, i as u32));
                    self.body.scopes[scope as usize].handlers.push(handler);
                }
                self.steps.push(Step::EndScope);
                self.visit_children(row);
            }
            _ => {
                self.steps.push(Step::Emit(row, before));
                self.visit_children(row);
            }
        }
    }

    fn visit_children(&mut self, row: u32) {
        let children = std::mem::take(&mut self.children[row as usize]);
        self.steps.extend(children.iter().rev().map(|&child| Step::Visit(child)));
        self.children[row as usize] = children;
    }

    /// Where a label is; `waiting` is told later if that is not known yet.
    fn target(&mut self, name: Name, waiting: Waiting) -> Target {
        let label = self.labels.iter_mut().rev().find(|l| l.name == Some(name)).expect("labels are around branches");
        let target = Target { at: label.start.unwrap_or(0), height: label.height, carries: label.carries };
        if label.start.is_none() {
            label.waiting.push(waiting);
        }
        target
    }

    fn branch(&mut self, name: Name) -> Target {
        let next = self.here();
        self.target(name, Waiting::Instruction(next))
    }

    fn emit_row(&mut self, row: u32, before: u32) {
        let data = *self.body.row(row);
        let operands = self.children[row as usize].len() as u32;
        let result = data.type_().is_concrete();
        let value = data.value as u32;
        let call = Call { arguments: operands, result, tail: data.is_return };
        let name = || data.named().expect("the expression names something");
        let op = match data.kind() {
            Kind::Nop => return,
            Kind::Const if data.has_value => Op::Const(data.value),
            Kind::RefNull => Op::Null,
            Kind::LocalGet => Op::LocalGet(value),
            Kind::LocalSet if result => Op::LocalTee(value),
            Kind::LocalSet => Op::LocalSet(value),
            Kind::GlobalGet => Op::GlobalGet(name()),
            Kind::GlobalSet => Op::GlobalSet(name()),
            Kind::Break => {
                let target = Target { carries: data.has_value, ..self.branch(name()) };
                if data.has_condition { Op::JumpIf(target) } else { Op::Jump(target) }
            }
            Kind::BrOn => Op::JumpPerhaps(self.branch(name())),
            Kind::Switch => {
                let first = self.body.targets.len() as u32;
                let labels: Vec<Name> = self.body.code.labels(&data).collect();
                for (i, &label) in labels.iter().enumerate() {
                    let target = self.target(label, Waiting::Target(first + i as u32));
                    self.body.targets.push(Target { carries: data.has_value, ..target });
                }
                Op::Table(first, labels.len() as u32)
            }
            Kind::Load => Op::Load {
                memory: name(),
                offset: data.value,
                bytes: data.bytes,
                signed: data.is_signed,
                type_: data.type_(),
                at: self.body.global_at(row),
            },
            Kind::Store => {
                let at = self.body.global_at(row);
                Op::Store { memory: name(), offset: data.value, bytes: data.bytes, at }
            }
            Kind::Call => Op::Call { function: name(), call },
            Kind::CallIndirect => {
                Op::CallIndirect { table: name(), call: Call { arguments: operands.saturating_sub(1), ..call } }
            }
            Kind::CallRef => Op::CallRef(Call { arguments: operands.saturating_sub(1), ..call }),
            Kind::Unary | Kind::Binary => Op::Fold(operands),
            Kind::Select => Op::Select,
            Kind::Drop => Op::Drop,
            Kind::Return => Op::Return(operands > 0),
            Kind::Unreachable => Op::Unreachable,
            Kind::TupleMake => Op::TupleMake(operands),
            Kind::TupleExtract => Op::TupleExtract(value),
            Kind::RefCast | Kind::RefAs if operands == 1 => Op::Cast,
            _ => Op::Other { operands, result },
        };
        self.emit(op, row);
        if matches!(data.kind(), Kind::Call | Kind::CallIndirect | Kind::CallRef) {
            self.body.calls.insert(row, Place { at: self.here(), height: before });
        }
    }
}
