//! Functions: their locals, guards and overall order, and what statements and expressions are written with.

use wasm_encoder::{BlockType, Function, Instruction, ValType};

use super::numeric::{self, Ty};
use super::plan::{FUEL, IMPORTS, Plan, Signature, any, vals};
use super::source::Source;

use Instruction as I;

/// A type of a block with parameters or several results.
pub type BlockSignature = (Vec<ValType>, Vec<ValType>);

/// A function that has been written.
pub struct Body {
    locals: Vec<ValType>,
    code: Vec<Instruction<'static>>,
}

impl Body {
    pub fn function(&self) -> Function {
        let mut function = Function::new_with_locals_types(self.locals.iter().copied());
        self.code.iter().for_each(|instruction| _ = function.instruction(instruction));
        function.instruction(&I::End);
        function
    }
}

/// What a label is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// A block, a loop, an arm.
    Block,
    /// A block that only exceptions leave: no branch goes there.
    Handler,
    /// The body of a legacy `try`: a `delegate` can go there.
    TryBody,
    /// A catch body of a legacy `try`: its exception can be thrown again.
    CatchBody,
}

/// A label, and what branches to it carry.
#[derive(Clone, Debug)]
pub struct Label {
    pub carries: Vec<Ty>,
    pub scope: Scope,
}

impl Label {
    pub fn block(carries: &[Ty]) -> Self {
        Self { carries: carries.to_vec(), scope: Scope::Block }
    }
}

/// Writes one function.
pub struct Writer<'a> {
    pub source: &'a mut Source,
    pub plan: &'a Plan,
    pub function: usize,
    /// Parameters and locals with numbers.
    pub locals: Vec<Ty>,
    /// A local that holds an exception.
    pub exception: Option<u32>,
    /// Labels, the innermost last. The first is the function's own.
    pub labels: Vec<Label>,
    /// Locals that are preferred, so that reads and writes meet.
    pub favourites: Vec<u32>,
    /// How much more may be written, roughly.
    pub budget: i32,
    pub depth: u32,
    pub code: Vec<Instruction<'static>>,
    block_types: &'a mut Vec<BlockSignature>,
}

/// Writes a function of the plan.
pub fn function(source: &mut Source, plan: &Plan, function: usize, block_types: &mut Vec<BlockSignature>) -> Body {
    let signature = plan.signature(function);
    let mut locals = signature.params.clone();
    let wide = source.one_in(12);
    let count = if wide { source.range(40, 70) } else { source.below(9) };
    locals.extend((0..count).map(|_| any(source, plan.features)));
    let exception = plan.features.exnref.then_some(locals.len() as u32);
    let budget = source.range(plan.limits.size / 6, plan.limits.size) as i32;
    let mut writer = Writer {
        source,
        plan,
        function,
        locals,
        exception,
        labels: vec![Label::block(&signature.results)],
        favourites: Vec::new(),
        budget,
        depth: 0,
        code: Vec::new(),
        block_types,
    };
    writer.body(wide);
    let mut declared = vals(&writer.locals[signature.params.len()..]);
    declared.extend(exception.map(|_| ValType::EXNREF));
    Body { locals: declared, code: writer.code }
}

impl Writer<'_> {
    fn body(&mut self, wide: bool) {
        if self.plan.functions[self.function].guarded {
            self.guard();
        }
        // What is set here differs from what a fresh activation would start with.
        for local in 0..self.locals.len() as u32 {
            if self.source.one_in(2) {
                let value = numeric::constant(self.source, self.locals[local as usize]);
                self.code.extend([value, I::LocalSet(local)]);
            }
        }
        if self.plan.functions[self.function].throws {
            self.fork_and_throw();
        } else if self.source.one_in(2) {
            // While there is fuel.
            self.meeting();
        }
        if self.function == 0 && !self.plan.functions[0].guarded {
            self.call_all();
        }
        let fewest = if self.function == 0 { 8 } else { 2 };
        for _ in 0..fewest + self.source.below(10) {
            self.statement();
        }
        if self.function == 0 || wide || self.source.one_in(2) {
            self.log_locals();
        }
        if self.function == 0 {
            self.log_globals();
        }
        self.exprs(&self.results());
    }

    /// Spends fuel; returns if there is none.
    pub fn guard(&mut self) {
        let spent = self.source.range(1, 6) as i32;
        self.code.extend([
            I::GlobalGet(FUEL),
            I::I32Const(spent),
            I::I32Sub,
            I::GlobalSet(FUEL),
            I::GlobalGet(FUEL),
            I::I32Const(0),
            I::I32LeS,
            I::If(BlockType::Empty),
        ]);
        let zeros: Vec<_> = self.results().into_iter().map(numeric::zero).collect();
        self.code.extend(zeros);
        self.code.extend([I::Return, I::End]);
    }

    pub fn signature(&self) -> &Signature {
        self.plan.signature(self.function)
    }

    pub fn results(&self) -> Vec<Ty> {
        self.signature().results.clone()
    }

    pub fn emit(&mut self, instruction: Instruction<'static>) {
        self.code.push(instruction);
    }

    /// A block's type.
    pub fn block_type(&mut self, params: &[ValType], results: &[ValType]) -> BlockType {
        match (params, results) {
            ([], []) => return BlockType::Empty,
            ([], [result]) => return BlockType::Result(*result),
            _ => {}
        }
        let wanted = (params.to_vec(), results.to_vec());
        let known = self.block_types.iter().position(|ty| *ty == wanted);
        let index = known.unwrap_or_else(|| {
            self.block_types.push(wanted);
            self.block_types.len() - 1
        });
        BlockType::FunctionType((self.plan.signatures.len() + index) as u32)
    }

    /// Opens a block, writes what is in it, closes it.
    pub fn inside(&mut self, opener: Instruction<'static>, label: &[Ty], content: impl FnOnce(&mut Self)) {
        self.inside_of(opener, Label::block(label), content);
    }

    /// The same, with any label.
    pub fn inside_of(&mut self, opener: Instruction<'static>, label: Label, content: impl FnOnce(&mut Self)) {
        self.emit(opener);
        self.labels.push(label);
        self.depth += 1;
        content(self);
        self.depth -= 1;
        self.labels.pop();
        self.emit(I::End);
    }

    /// A local of that type.
    pub fn local(&mut self, ty: Ty) -> Option<u32> {
        let is_of_type = |local: &u32| self.locals[*local as usize] == ty;
        let preferred: Vec<u32> = self.favourites.iter().copied().filter(is_of_type).collect();
        let of_type: Vec<u32> = (0..self.locals.len() as u32).filter(is_of_type).collect();
        if !preferred.is_empty() && !self.source.one_in(3) {
            return Some(self.source.pick(&preferred));
        }
        if of_type.is_empty() { None } else { Some(self.source.pick(&of_type)) }
    }

    /// A global of that type.
    pub fn global(&mut self, ty: Ty, mutable: bool) -> Option<u32> {
        let globals = self.plan.globals.iter().enumerate();
        let fits = globals.filter(|(_, global)| global.ty == ty && (global.mutable || !mutable));
        let of_type: Vec<u32> = fits.map(|(index, _)| index as u32 + 1).collect();
        if of_type.is_empty() { None } else { Some(self.source.pick(&of_type)) }
    }

    /// Labels whose branches carry these types, as depths.
    pub fn labels_with(&self, types: &[Ty]) -> Vec<u32> {
        let depths = self.labels.iter().rev().enumerate();
        let fits = |label: &Label| label.carries == types && label.scope != Scope::Handler;
        depths.filter(|(_, label)| fits(label)).map(|(depth, _)| depth as u32).collect()
    }

    /// Labels of a scope, as depths.
    pub fn labels_of(&self, scope: Scope) -> Vec<u32> {
        let depths = self.labels.iter().rev().enumerate();
        depths.filter(|(_, label)| label.scope == scope).map(|(depth, _)| depth as u32).collect()
    }

    /// Any label: its depth, and what branches to it carry if there can be some.
    pub fn any_label(&mut self) -> (u32, Option<Vec<Ty>>) {
        let depth = self.source.below(self.labels.len() as u32);
        let label = &self.labels[self.labels.len() - 1 - depth as usize];
        (depth, (label.scope != Scope::Handler).then(|| label.carries.clone()))
    }

    /// A defined function that may be called from here.
    pub fn callee(&mut self, fits: impl Fn(&Signature) -> bool) -> Option<usize> {
        self.callee_that(|plan, callee| fits(plan.signature(callee)))
    }

    /// A defined function that may be called from here.
    pub fn callee_that(&mut self, fits: impl Fn(&Plan, usize) -> bool) -> Option<usize> {
        let plan = self.plan;
        let caller_guarded = self.function == 0 || plan.functions[self.function].guarded;
        let may = |callee: &usize| plan.functions[*callee].guarded || (caller_guarded && *callee > 0);
        let callees = (0..plan.functions.len()).filter(may).filter(|callee| fits(plan, *callee));
        let callees: Vec<usize> = callees.collect();
        if callees.is_empty() { None } else { Some(self.source.pick(&callees)) }
    }

    /// Logs the number on the stack.
    pub fn log(&mut self, ty: Ty) {
        match ty {
            Ty::I32 => self.emit(I::Call(1)),
            Ty::I64 => self.emit(I::Call(2)),
            Ty::F32 => self.emit(I::Call(3)),
            Ty::F64 => self.emit(I::Call(4)),
            Ty::V128 => self.code.extend([I::I64x2ExtractLane(1), I::Call(2)]),
        }
    }

    pub fn log_local(&mut self, local: u32) {
        self.emit(I::LocalGet(local));
        self.log(self.locals[local as usize]);
    }

    pub fn log_locals(&mut self) {
        (0..self.locals.len() as u32).for_each(|local| self.log_local(local));
    }

    fn log_globals(&mut self) {
        for (index, global) in self.plan.globals.iter().enumerate() {
            self.emit(I::GlobalGet(index as u32 + 1));
            self.log(global.ty);
        }
    }

    /// Index of a defined function.
    pub fn index(&self, function: usize) -> u32 {
        IMPORTS + function as u32
    }
}
