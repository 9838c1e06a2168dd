//! Measures what the design promises of speed, side by side with what it is held against.
//!
//! `scripts/bench` builds and runs this.  Every section starts its own cloud
//! (the real program, a directory of its own), takes turns between ours and the
//! reference so that a loaded machine troubles both alike, and gives medians
//! and their ratio.  Nothing here passes or fails: numbers are read by people,
//! and `docs/performance.md` says which were read when.

mod bare;
mod boot;
mod bundle;
mod client;
mod describe;
mod launch;
mod process;
mod report;
mod s3;
mod start;

use std::path::PathBuf;

use anyhow::{Context as _, bail};

use report::Report;

const USAGE: &str = "\
cumulet-bench PROGRAM [--quick] [SECTION]...
Sections: start describe launch s3 bundle boot; all of them when none is named.
--quick takes fewer turns and a tenth of the instances.
The section boot needs root, QEMU, and BENCH_HALT_IMAGE, BENCH_MINI_IMAGE, BENCH_KERNEL, BENCH_RAMDISK.";

/// What all sections are told.
struct Plan {
    program: PathBuf,
    is_quick: bool,
}

impl Plan {
    /// How often something is repeated.
    fn turns(&self, full: usize) -> usize {
        if self.is_quick {
            full.div_ceil(3)
        } else {
            full
        }
    }
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["bare", body] => bare::run(body),
        ["unbundle", manifest, key, out] => bundle::unbundle(manifest, key, out),
        [program, rest @ ..] if !program.starts_with('-') => {
            let plan = Plan {
                program: PathBuf::from(program)
                    .canonicalize()
                    .with_context(|| format!("no program {program}"))?,
                is_quick: rest.contains(&"--quick"),
            };
            let sections: Vec<&str> = rest
                .iter()
                .copied()
                .filter(|it| !it.starts_with("--"))
                .collect();
            measure(&plan, &sections)
        }
        _ => bail!("{USAGE}"),
    }
}

fn measure(plan: &Plan, chosen: &[&str]) -> anyhow::Result<()> {
    type Section = fn(&Plan, &mut Report) -> anyhow::Result<()>;
    let sections: [(&str, Section); 6] = [
        ("start", start::run),
        ("describe", describe::run),
        ("launch", launch::run),
        ("s3", s3::run),
        ("bundle", bundle::run),
        ("boot", boot::run),
    ];
    if let Some(unknown) = chosen
        .iter()
        .find(|name| !sections.iter().any(|(known, _)| known == *name))
    {
        bail!("no section {unknown}\n{USAGE}");
    }
    let mut report = Report::begin();
    for (name, run) in sections {
        if chosen.is_empty() || chosen.contains(&name) {
            report.section(name);
            run(plan, &mut report).with_context(|| format!("section {name}"))?;
        }
    }
    report.end();
    Ok(())
}
