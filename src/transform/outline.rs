//! Makes functions of code that occurs again and again ([`outlining`](crate::analysis::outlining)), and calls of them.

use crate::analysis::outlining::{Gives, Outlined, Place};
use crate::ir::{Expr, Kind, Module, Type};
use crate::transform::runtime::Runtime;

/// Adds the functions, and puts calls of them in the places of their code.
pub fn outline<'m>(module: Module<'m>, runtime: &Runtime, all: &[Outlined<'m>]) {
    for (number, outlined) in all.iter().enumerate() {
        let name = runtime.outlined(number);
        add_function(module, &name, outlined);
        for place in &outlined.places {
            replace(module, &name, outlined, place);
        }
    }
}

fn results(outlined: &Outlined<'_>) -> Type {
    match outlined.gives {
        Gives::Nothing => Type::NONE,
        Gives::Value(type_) => type_,
        Gives::Local(local) => outlined.locals[local as usize],
    }
}

fn add_function<'m>(module: Module<'m>, name: &str, outlined: &Outlined<'m>) {
    let build = module.build();
    let (params, variables) = outlined.locals.split_at(outlined.params);
    module.add_function(name, Type::tuple(params), results(outlined), build.unreachable());
    let function = module.function(name);
    for &type_ in variables {
        function.add_local(type_, "fork.outlined");
    }
    let place = &outlined.places[0];
    let numbers: Vec<u32> = (0..outlined.locals.len() as u32).collect();
    let mut code = Vec::new();
    for &expr in &place.code {
        let copy = place.function.copy_code_to(module, function, expr, &[]);
        copy.renumber_locals(&place.locals, &numbers);
        code.push(copy);
    }
    if let Gives::Local(local) = outlined.gives {
        code.push(build.local_get(local, outlined.locals[local as usize]));
    }
    function.set_body(build.block(None, &code, None));
}

fn replace<'m>(module: Module<'m>, name: &str, outlined: &Outlined<'m>, place: &Place<'m>) {
    let build = module.build();
    let params = place.locals.iter().zip(&outlined.locals).take(outlined.params);
    let operands: Vec<Expr<'m>> = params.map(|(&local, &type_)| build.local_get(local, type_)).collect();
    let call = build.call(name, &operands, results(outlined));
    place.function.copy_location_to(place.function, place.code[0], call);
    let call = match outlined.gives {
        Gives::Local(local) if place.reads_result => build.local_set(place.locals[local as usize], call),
        Gives::Local(_) => build.drop(call),
        _ => call,
    };
    match place.parent.kind() {
        Kind::Block => place.parent.replace_children(place.code[0], place.code.len(), call),
        _ => place.parent.set_child(place.child, call),
    }
}
