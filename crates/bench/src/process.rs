//! What the kernel counted for a process.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;

/// CPU time of every thread that lives, by nanoseconds.
#[derive(Debug, Clone)]
pub(crate) struct Threads(BTreeMap<String, u64>);

impl Threads {
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let mut threads = BTreeMap::new();
        for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let entry = entry?;
            // A thread may end between the two calls.
            let Ok(text) = std::fs::read_to_string(entry.path().join("schedstat")) else {
                continue;
            };
            let spent = text.split(' ').next().unwrap_or_default().parse()?;
            threads.insert(entry.file_name().to_string_lossy().into_owned(), spent);
        }
        Ok(Self(threads))
    }

    /// CPU time spent since `before` by threads that live still.
    pub(crate) fn since(&self, before: &Self) -> Duration {
        let spent = self.0.iter().map(|(thread, spent)| {
            let earlier = before.0.get(thread).copied().unwrap_or(0);
            spent.saturating_sub(earlier)
        });
        Duration::from_nanos(spent.sum())
    }
}

/// CPU time of a process and of the children that it has waited for, by hundredths of a second.
pub(crate) fn cpu_with_children(pid: u32) -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let rest = text.rsplit_once(')').context("a name in brackets")?.1;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = fields
        .get(11..15)
        .context("times")?
        .iter()
        .map(|it| it.parse::<u64>());
    let ticks: u64 = ticks.sum::<Result<_, _>>()?;
    Ok(Duration::from_millis(ticks * 10))
}

/// Resident memory, in MiB: all of it, and what is not a file's.
pub(crate) fn memory_mib(pid: u32) -> anyhow::Result<(f64, f64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> anyhow::Result<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kib: f64 = line
            .context("a field")?
            .trim_start_matches(':')
            .trim()
            .trim_end_matches(" kB")
            .parse()?;
        Ok(kib / 1024.0)
    };
    Ok((field("VmRSS")?, field("RssAnon")?))
}
