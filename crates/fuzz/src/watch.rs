//! Ends the process when one input takes too long or too much memory.
//!
//! The bounds are far beyond anything that a good parser needs: they find
//! hanging and unbounded growth, and are no measure of speed.  The input is in
//! its file already, so that a process that the kernel ends leaves it too.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Longest time of one input.
const TIME_MAX: Duration = Duration::from_secs(10);
/// Most resident memory beyond what the target needed before its first input.
const RESIDENT_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Most address space beyond that: an allocation past it fails at once.
const ADDRESS_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
const PAGE_BYTES: u64 = 4096;
const STEP: Duration = Duration::from_millis(50);

/// The watchdog's thread; dropping this ends it.
pub(crate) struct Watchdog {
    shared: Arc<Shared>,
}

struct Shared {
    begin: Instant,
    /// When the input that is running was begun, in milliseconds since `begin`; 0 between inputs.
    since_ms: AtomicU64,
    is_over: AtomicBool,
}

impl Shared {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Watchdog {
    /// Starts watching; `input` is named when something is wrong.
    pub(crate) fn start(input: &Path) -> anyhow::Result<Self> {
        let (address, resident) = memory()?;
        limit_address_space(address.saturating_add(ADDRESS_BYTES_MAX))?;
        let shared = Arc::new(Shared {
            begin: Instant::now(),
            since_ms: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        });
        let (watched, input) = (shared.clone(), input.to_owned());
        let limit = resident.saturating_add(RESIDENT_BYTES_MAX);
        std::thread::Builder::new()
            .name("watchdog".into())
            .spawn(move || watch(&watched, &input, limit))
            .context("could not start the watchdog")?;
        Ok(Self { shared })
    }

    /// An input begins.
    pub(crate) fn begin(&self) {
        let now = self.shared.now_ms().max(1);
        self.shared.since_ms.store(now, Ordering::Relaxed);
    }

    /// It has ended.
    pub(crate) fn end(&self) {
        self.shared.since_ms.store(0, Ordering::Relaxed);
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
    }
}

fn watch(shared: &Shared, input: &Path, resident_max: u64) {
    while !shared.is_over.load(Ordering::Relaxed) {
        std::thread::sleep(STEP);
        let since = shared.since_ms.load(Ordering::Relaxed);
        if since == 0 {
            continue;
        }
        let taken = Duration::from_millis(shared.now_ms().saturating_sub(since));
        let resident = memory().map_or(0, |(_, resident)| resident);
        let problem = if taken > TIME_MAX {
            format!("it takes longer than {TIME_MAX:?}")
        } else if resident > resident_max {
            format!("it takes more than {RESIDENT_BYTES_MAX} bytes of memory")
        } else {
            continue;
        };
        let _ = writeln!(
            std::io::stderr(),
            "FAILED: {problem}; the input is in {}",
            input.display()
        );
        // The thread that hangs cannot be stopped in another way.
        std::process::abort();
    }
}

/// Bytes of address space and of resident memory.
fn memory() -> anyhow::Result<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/self/statm").context("could not read statm")?;
    let mut pages = text
        .split_ascii_whitespace()
        .map_while(|word| word.parse::<u64>().ok());
    let (address, resident) = (pages.next(), pages.next());
    let (address, resident) = address.zip(resident).context("statm has another form")?;
    Ok((address * PAGE_BYTES, resident * PAGE_BYTES))
}

fn limit_address_space(bytes: u64) -> anyhow::Result<()> {
    let old = getrlimit(Resource::As);
    let bytes = old.maximum.map_or(bytes, |maximum| maximum.min(bytes));
    let new = Rlimit {
        current: Some(bytes),
        maximum: old.maximum,
    };
    setrlimit(Resource::As, new).context("could not limit the address space")
}
