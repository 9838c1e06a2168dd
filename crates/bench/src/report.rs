//! Medians, ratios and the table of them.

use std::fmt;
use std::time::Duration;

/// The middle one; of an even count the upper of both.
///
/// # Panics
/// When there is none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    assert!(!values.is_empty(), "nothing was measured");
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A number with its unit, in three digits.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value {
    Seconds(f64),
    PerSecond(f64),
    Mib(f64),
}

impl Value {
    fn number(self) -> f64 {
        match self {
            Value::Seconds(it) | Value::PerSecond(it) | Value::Mib(it) => it,
        }
    }

    /// Of durations.
    pub(crate) fn median_of(times: Vec<Duration>) -> Self {
        Value::Seconds(median(times.iter().map(Duration::as_secs_f64).collect()))
    }
}

impl fmt::Display for Value {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Seconds(it) if *it < 1e-3 => write!(out, "{:.1} µs", it * 1e6),
            Value::Seconds(it) if *it < 1.0 => write!(out, "{:.1} ms", it * 1e3),
            Value::Seconds(it) => write!(out, "{it:.2} s"),
            Value::PerSecond(it) => write!(out, "{it:.0}/s"),
            Value::Mib(it) => write!(out, "{it:.1} MiB"),
        }
    }
}

/// What was measured so far.
pub(crate) struct Report {
    rows: Vec<[String; 5]>,
    load_before: String,
}

impl Report {
    pub(crate) fn begin() -> Self {
        Self {
            rows: vec![],
            load_before: load(),
        }
    }

    pub(crate) fn section(&mut self, name: &str) {
        eprintln!("\n== {name} (load {})", load());
    }

    /// Ours against a reference; the ratio is ours to the reference's.
    pub(crate) fn versus(&mut self, what: &str, ours: Value, reference: Value, target: &str) {
        let ratio = format!("{:.2}", ours.number() / reference.number());
        self.row([
            what.to_owned(),
            ours.to_string(),
            reference.to_string(),
            ratio,
            target.to_owned(),
        ]);
    }

    /// Ours alone.
    pub(crate) fn alone(&mut self, what: &str, ours: Value, target: &str) {
        self.row([
            what.to_owned(),
            ours.to_string(),
            "-".to_owned(),
            "-".to_owned(),
            target.to_owned(),
        ]);
    }

    fn row(&mut self, row: [String; 5]) {
        eprintln!(
            "{}: {} | {} | {} ({})",
            row[0], row[1], row[2], row[3], row[4]
        );
        self.rows.push(row);
    }

    /// Prints the table.
    pub(crate) fn end(self) {
        println!("\nload before: {}; after: {}\n", self.load_before, load());
        println!("| what (medians) | ours | reference | ratio | target |");
        println!("|---|---|---|---|---|");
        for row in &self.rows {
            println!("| {} |", row.join(" | "));
        }
    }
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}
