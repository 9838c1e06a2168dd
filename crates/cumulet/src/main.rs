//! The program: configuration, command line, wiring, listeners.
//!
//! The only crate that knows everything, and the one that decides nothing: it
//! reads settings, builds the engine with its real surroundings in [`wiring`]
//! and puts the doors behind one address in [`http`].  Start reading at
//! [`commands`] for the command line, at [`commands::serve`] for the server.

mod backup;
mod bootstrap;
mod commands;
mod config;
mod control;
mod data_dir;
mod descriptors;
mod http;
mod image_objects;
mod instance_facts;
mod logging;
mod machine;
mod operator;
mod password;
mod stops;
mod surroundings;
mod wiring;

use std::process::ExitCode;

fn main() -> ExitCode {
    // The program's own children come first: they run without a runtime, without settings and
    // with as little memory as possible.
    if let Some(code) = wiring::internal_command(std::env::args_os().nth(1).as_deref()) {
        return code;
    }
    commands::main()
}
