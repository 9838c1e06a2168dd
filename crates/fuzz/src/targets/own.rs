//! A target that does what no parser may, so that a test can see that it is found.

use std::time::Duration;

use super::{Runner, Target};

pub(crate) static SELF_TEST: Target = Target {
    name: "self-test",
    dictionary: &[],
    length_max: 16,
    prepare,
};

fn prepare() -> Runner {
    Box::new(|input| {
        let mut held: Vec<Vec<u8>> = vec![];
        match input {
            b"panic" => panic!("as asked"),
            b"hang" => loop {
                std::thread::sleep(Duration::from_secs(1));
            },
            b"grow" => loop {
                // More than the watchdog allows, and then slowly, so that it can look.
                if held.len() < 12 {
                    held.push(vec![1; 64 << 20]);
                }
                std::thread::sleep(Duration::from_millis(10));
            },
            _ => 0,
        }
    })
}
