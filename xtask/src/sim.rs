//! `cargo xtask sim`: the seeded simulation of `crates/testkit`, one seed shown line by line, or many.

use std::path::Path;
use std::process::Command;

/// What was asked for; the test has defaults for what was not.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    seed: Option<u64>,
    seeds: Option<u64>,
    steps: Option<u64>,
}

fn parse(words: &[&str]) -> Result<Wanted, String> {
    let mut wanted = Wanted::default();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let place = match *word {
            "--seed" => &mut wanted.seed,
            "--seeds" => &mut wanted.seeds,
            "--steps" => &mut wanted.steps,
            other => return Err(format!("sim knows no {other}")),
        };
        let number = rest.next().and_then(|text| text.parse().ok());
        *place = Some(number.ok_or_else(|| format!("{word} wants a number"))?);
    }
    Ok(wanted)
}

/// Runs the simulation; one seed is shown as it happens.
pub(crate) fn run(root: &Path, words: &[&str]) -> Result<(), String> {
    let wanted = parse(words)?;
    let mut command = Command::new(env!("CARGO"));
    command
        .current_dir(root)
        .args(["test", "-p", "cumulet-testkit", "--test", "sim", "--"])
        .args(["--exact", "--nocapture", "seeds_keep_every_promise"]);
    let variables = [
        ("TEST_SEED", wanted.seed),
        ("SIM_SEEDS", wanted.seeds),
        ("SIM_STEPS", wanted.steps),
    ];
    for (name, value) in variables {
        if let Some(value) = value {
            command.env(name, value.to_string());
        }
    }
    if wanted.seed.is_some() && wanted.seeds.is_none() {
        command.env("SIM_VERBOSE", "1");
    }
    let status = command
        .status()
        .map_err(|cause| format!("cargo does not start: {cause}"))?;
    if status.success() {
        Ok(())
    } else {
        Err("the simulation failed".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_numbers() {
        let wanted = parse(&["--seed", "7", "--steps", "80"]).expect("good words");
        assert_eq!(
            (wanted.seed, wanted.steps, wanted.seeds),
            (Some(7), Some(80), None)
        );
        assert!(parse(&["--seed"]).is_err());
        assert!(parse(&["--seed", "x"]).is_err());
        assert!(parse(&["--sneed", "7"]).is_err());
    }
}
