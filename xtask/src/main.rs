//! `cargo xtask`: what a build of this repository does besides compiling.

mod check;
mod codegen;
mod sim;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask check    tidiness: licences, dependencies, layers, sources, generated files (seconds, no network)
cargo xtask codegen  writes the generated tables and docs/compatibility.md from models/
cargo xtask sim      the simulation: --seed N shows one seed, --seeds COUNT runs many, --steps M what clients do";

/// The folder of the repository, wherever the command was typed.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a folder of the repository")
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["check"] => check::run().and_then(|()| codegen::run(true)),
        ["codegen"] => codegen::run(false),
        ["sim", rest @ ..] => sim::run(root(), rest),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}
