//! Time of the pass by the number of functions: ten times as many should take about ten times as long.

use std::fmt::Write as _;

use wasmtime::{Result, format_err};

use crate::results::{Results, median};
use crate::tools::Tools;

const COUNTS: [u64; 2] = [1000, 10_000];

pub fn measure(tools: &Tools, results: &mut Results) -> Result<()> {
    for count in COUNTS {
        let (text, input) = (tools.out.join("scaling.wat"), tools.out.join(format!("scaling.{count}.wasm")));
        std::fs::write(&text, program(count))?;
        tools.wasm_opt(&text, &[], &[], &input)?;
        let output = tools.out.join("scaling.out.wasm");
        let resume = format!("--pass-arg=fork-instrument-resume@{}", tools.out.join("scaling.resume.wasm").display());
        let separate = ["--enable-reference-types", "--fork-instrument", &resume];
        let metrics = [("plain", &["-O0"][..]), ("pass", &["--fork-instrument"]), ("separate", &separate)];
        for (metric, options) in metrics {
            let mut arguments = vec!["spawn".to_owned(), tools.wasm_opt.display().to_string()];
            arguments.extend(tools.arguments(&input, options, &[], &output));
            let mut taken = (Vec::new(), Vec::new());
            for _ in 0..3 {
                let value = tools.worker(&arguments)?;
                let number = |key: &str| value[key].as_f64().ok_or_else(|| format_err!("no {key} in {value}"));
                taken.0.push(number("cpu")?);
                taken.1.push(number("peak")?);
            }
            let entry = results.scaling.entry(count).or_default();
            entry.insert(format!("{metric}.cpu"), median(&taken.0));
            entry.insert(format!("{metric}.peak"), median(&taken.1));
        }
    }
    Ok(())
}

/// A program of `count` functions, all of them on the fork path, directly or through a table of all.
fn program(count: u64) -> String {
    let mut text = String::from(
        "(module (import \"kernel\" \"kernel_fork\" (func $fork (result i32))) (memory (export \"memory\") 1)\n\
         (type $t (func (param i32 i32) (result i32)))\n",
    );
    let all: String = (0..count).map(|index| format!(" $f{index}")).collect();
    writeln!(text, "(table funcref (elem{all}))").expect("a string takes everything");
    for index in 0..count {
        let (next, far) = ((index + 1) % count, (index * 7919 + 13) % count);
        let leaf = if index % 50 == 0 { "(drop (call $fork))" } else { "" };
        writeln!(
            text,
            "(func $f{index} (type $t) (local $i i32) (local $x i32) (local $y i64)
               {leaf}
               (local.set $x (i32.add (local.get 0) (i32.const {index})))
               (loop $again
                 (if (i32.and (local.get $x) (i32.const 1))
                   (then (i32.store (i32.shl (local.get $i) (i32.const 2))
                     (i32.add (local.get 1) (call $f{next} (local.get $x) (local.get $i)))))
                   (else (local.set $y (i64.extend_i32_u (call_indirect (type $t)
                     (local.get $i) (local.get $x) (i32.const {far}))))))
                 (block $out
                   (br_if $out (i32.eqz (call $f{far} (i32.wrap_i64 (local.get $y)) (local.get $i))))
                   (local.set $x (call $f{next} (i32.load (local.get $x)) (local.get 0))))
                 (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (local.get 1))))
               (i32.sub (local.get $x) (i32.wrap_i64 (local.get $y))))"
        )
        .expect("a string takes everything");
    }
    text + "(func (export \"run\") (result i32) (call $f0 (i32.const 1) (i32.const 2))))\n"
}
