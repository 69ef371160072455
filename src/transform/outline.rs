//! Makes functions of code that occurs again and again ([`outlining`](crate::analysis::outlining)), and calls of them.

use crate::analysis::outlining::{Gives, Outlined, Place};
use crate::ir::{Expr, Kind, Module, Type};
use crate::transform::runtime::Runtime;

/// Adds the functions, and puts calls of them in the places of their code. Gives their names.
pub fn outline<'m>(module: Module<'m>, runtime: &Runtime, all: &[Outlined<'m>]) -> Vec<String> {
    let names: Vec<String> =
        (0..all.len()).map(|number| runtime.outlined_name(runtime.outlined.len() + number)).collect();
    for (name, outlined) in names.iter().zip(all) {
        add_function(module, name, outlined);
        for place in &outlined.places {
            replace(module, name, outlined, place);
        }
    }
    names
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
    let (of_locals, variables) = outlined.locals.split_at(outlined.params);
    let params = [of_locals, &outlined.leaf_params].concat();
    module.add_function(name, Type::tuple(&params), results(outlined), build.unreachable());
    let function = module.function(name);
    for &type_ in variables {
        function.add_local(type_, "fork.outlined");
    }
    // Parameters for leaves are between those for locals and the variables.
    let (first, between) = (outlined.params as u32, outlined.leaf_params.len() as u32);
    let number = |local: u32| if local < first { local } else { local + between };
    let numbers: Vec<u32> = (0..outlined.locals.len() as u32).map(number).collect();
    let leaves: Vec<Option<u32>> = outlined.leaves.iter().map(|param| param.map(|param| first + param)).collect();
    let place = &outlined.places[0];
    let copy = |&expr: &Expr<'m>| place.function.copy_code_to(module, function, expr, &[]);
    let mut code: Vec<Expr<'m>> = place.code.iter().map(copy).collect();
    module.generalize(&mut code, &place.locals, &numbers, &leaves);
    if let Gives::Local(local) = outlined.gives {
        let local = number(local);
        let is_set_last = |last: &mut Expr<'m>| last.kind() == Kind::LocalSet && last.local() == local;
        let value = match code.pop_if(is_set_last) {
            Some(set) => set.child(0),
            None => build.local_get(local, results(outlined)),
        };
        code.push(value);
    }
    function.set_body(build.block(None, &code, None));
}

fn replace<'m>(module: Module<'m>, name: &str, outlined: &Outlined<'m>, place: &Place<'m>) {
    let build = module.build();
    let params = place.locals.iter().zip(&outlined.locals).take(outlined.params);
    let mut operands: Vec<Expr<'m>> = params.map(|(&local, &type_)| build.local_get(local, type_)).collect();
    operands.extend(&place.leaves);
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
