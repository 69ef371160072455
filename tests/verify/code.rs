//! Finding and replacing expressions in an output.

use fork_instrument::ir::{Builder, Expr, Function, Kind, Module, Node};

/// A function of the output.
#[derive(Clone, Copy)]
pub struct Code<'m> {
    pub module: Module<'m>,
    pub function: Function<'m>,
    pub build: Builder<'m>,
}

/// An expression and where it stands.
#[derive(Clone, Copy)]
pub struct Found<'m> {
    pub expr: Expr<'m>,
    pub parent: Option<Expr<'m>>,
    pub position: u32,
}

impl<'m> Found<'m> {
    pub fn is_in(&self, kind: Kind) -> bool {
        self.parent.is_some_and(|parent| parent.kind() == kind)
    }

    /// Whether it calls a function with this in its name.
    pub fn calls(&self, name: &str) -> bool {
        calls(self.expr, name)
    }
}

pub fn calls(expr: Expr<'_>, name: &str) -> bool {
    expr.kind() == Kind::Call
        && expr.describe_call().and_then(|call| call.target()).is_some_and(|callee| callee.text().contains(name))
}

impl<'m> Code<'m> {
    pub fn of(module: Module<'m>, function: &str) -> Code<'m> {
        Code { module, function: module.function(function), build: module.build() }
    }

    /// All expressions of which this holds, in post-order.
    pub fn find_all(&self, is_wanted: impl Fn(&Found<'m>) -> bool) -> Vec<Found<'m>> {
        let nodes = self.function.nodes();
        let found = |node: &Node| Found {
            expr: node.expr(),
            parent: (node.parent != u32::MAX).then(|| nodes[node.parent as usize].expr()),
            position: node.child,
        };
        nodes.iter().map(found).filter(is_wanted).collect()
    }

    /// The first such expression. Fails if there is none: then the mutation must be written anew.
    pub fn find(&self, is_wanted: impl Fn(&Found<'m>) -> bool) -> Found<'m> {
        *self.find_all(is_wanted).first().expect("the output has such an expression")
    }

    pub fn replace(&self, found: Found<'m>, with: Expr<'m>) {
        match found.parent {
            Some(parent) => parent.set_child(found.position, with),
            None => self.function.set_body(with),
        }
        self.function.refinalize(self.module);
    }

    /// The state, where a branch or a choice depends on it.
    pub fn state_in(&self, kind: Kind) -> Found<'m> {
        self.find(|f| f.expr.kind() == Kind::GlobalGet && f.is_in(kind))
    }

    /// Executes something first.
    pub fn put_first(&self, code: Expr<'m>) {
        let all = [code, self.function.body()];
        self.function.set_body(self.build.block(None, &all, Some(self.function.results())));
    }
}
