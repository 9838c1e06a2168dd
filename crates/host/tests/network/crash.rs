//! A server that is killed at any moment leaves nothing that the next one
//! cannot use or remove.

use std::process::{Command, Stdio};
use std::time::Duration;

use cumulet_host::api::Network;
use cumulet_host::net::{KernelNetwork, inventory};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::pipe::PipeFlags;

use crate::support::{Guest, WORLD, block_on, config, host_state, on_a_host, port};

const ONE: &str = "0a1b2c3d";
const CHILD: &str = "CUMULET_TEST_CRASHING_SERVER";
const ROUNDS: u64 = 24;
const SEED: u64 = 20_070_301;

/// Not a test of its own: the server that the test below kills.
#[test]
fn crashing_server() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let config = config(ONE, 210);
    let network = KernelNetwork::new(config.clone()).unwrap();
    // Killed long before: the bound is for a parent that died.
    for _ in 0..1_000 {
        let _ = block_on(network.ensure_ground());
        for last in 4..8 {
            let _ = block_on(network.ensure_port(&port(&config, last)));
        }
        for last in 5..8 {
            let _ = block_on(network.ensure_port_absent(port(&config, last).instance));
        }
        let _ = block_on(network.remove_ground());
    }
}

#[test]
fn what_a_killed_server_left_is_used_or_removed() {
    on_a_host(|| {
        let before = host_state();
        // Planned once, as a cloud does: the range is in use afterwards.
        let config = config(ONE, 210);
        let mut state = SEED;
        for round in 0..ROUNDS {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let delay = Duration::from_millis((state >> 33) % 400);
            let said = format!("seed {SEED}, round {round}, killed after {delay:?}");
            run_and_kill(delay);
            let network = KernelNetwork::new(config.clone()).unwrap();
            if round % 2 == 0 {
                block_on(network.ensure_ground()).unwrap_or_else(|error| panic!("{said}: {error}"));
                let mut ports = block_on(network.ports()).unwrap();
                ports.retain(|id| *id != port(&config, 4).instance);
                for id in ports {
                    block_on(network.ensure_port_absent(id))
                        .unwrap_or_else(|error| panic!("{said}: {error}"));
                }
                let guest = Guest::with_lease(&network, &port(&config, 4));
                assert!(guest.can_ping(WORLD), "{said}");
                assert_eq!(inventory(ONE).unwrap().ports.len(), 1, "{said}");
                guest.end();
            }
            block_on(network.remove_ground()).unwrap_or_else(|error| panic!("{said}: {error}"));
            assert_eq!(host_state(), before, "{said}");
        }
    });
}

/// Returns when the server and the programs that it had started are gone.
fn run_and_kill(delay: Duration) {
    // Inherited by all of them; it is at its end when the last has closed it.
    let (ended, held) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).unwrap();
    fcntl_setfd(&held, FdFlags::empty()).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["crash::crashing_server", "--exact"])
        .env(CHILD, "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(held);
    std::thread::sleep(delay);
    child.kill().unwrap();
    child.wait().unwrap();
    while rustix::io::read(&ended, &mut [0; 64][..]).unwrap() > 0 {}
}
