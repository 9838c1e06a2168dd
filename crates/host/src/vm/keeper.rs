//! The process that QEMU runs under: `cumulet keep`.
//!
//! It starts QEMU, owns the guest's console and writes down how the guest ended
//! before QEMU is let go, so that none of it is lost while the server is away.
//! It runs under the instance's own user id, in the instance's directory, with
//! nothing in its environment; one thread, one `poll`.  It knows nothing about
//! records, disks or networks: the server hands it a finished command line and
//! the descriptors in it.
//!
//! Life of a guest, as seen from here:
//!
//! ```text
//!  greeting -> capabilities -> cont -> [running] -- SHUTDOWN --> exit.json -> quit -> end
//!                                        |   ^
//!                          reboot asked  v   |  RESET, cont
//!                                     [going down]
//! ```
//!
//! Invariants: `exit.json` is durable before QEMU may go; the lock's descriptor
//! is held by this process and by QEMU and by nobody else; QEMU never outlives
//! its keeper.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, ExitCode};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::FdFlags;
use rustix::process::{Pid, PidfdFlags};

use super::client::{CLIENT_MAX, Client, Heard};
use super::clock::now;
use super::protocol::{
    self, Answer, CONSOLE_DESCRIPTOR, CONTROL_SOCKET, EXIT_FILE, ExitRecord, Job, KEEPER_FILE,
    KeeperRecord, OUT_OF_ROOM_FILE, QMP_DESCRIPTOR, RUN_DESCRIPTOR, Reply, Request, VERSION,
};
use super::qmp::{self, Event, Message};
use super::ring;
use super::spawn::{close_inherited, start_qemu, take};
use crate::api::{Exit, ExitCause};
use cumulet_durable as durable;

/// Until QEMU must have started the guest; long, since hosts may be busy.
const START_MAX: Duration = Duration::from_secs(60);
/// Until QEMU must be gone after it was told to quit.
const QUIT_MAX: Duration = Duration::from_secs(10);
const CLIENTS_MAX: usize = 8;
/// How much of QEMU's complaints is kept.
const COMPLAINT_BYTES_MAX: usize = 2048;
/// How long a guest may take to go down when the keeper is told to end (SIGTERM), as when the host
/// shuts down; a second signal does not wait.
const TERM_PATIENCE_MS: u64 = 60_000;
/// The console may give so much, then it rests: a guest that floods it waits, as for a slow serial
/// line, and neither our time nor the server's requests suffer.
const CONSOLE_BURST: usize = 64 * 1024;
const CONSOLE_REST: Duration = Duration::from_millis(50);
/// How often a guest is continued that waits for room on the host's disk.
const CONTINUE_EVERY: Duration = Duration::from_secs(5);
/// A guest that was continued and needed no more room for this long has enough.
const ROOM_AFTER: Duration = Duration::from_secs(2);
/// The power button is pressed again and again, since a guest that is still coming up hears
/// nothing, and one that is going down does not mind.
const PRESS_EVERY: Duration = Duration::from_secs(5);

/// Runs as keeper; called by the program when it is started as `cumulet keep`, before anything
/// else.  Standard input is the socket of the server that started it.
pub fn keeper_main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let failed = Reply::Failed {
                detail: format!("keeper: {error}"),
            };
            // The server may be gone; then nobody waits for it.
            let _ = protocol::send(io::stdin(), &failed, &[]);
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    close_inherited()?;
    rustix::process::setsid()?;
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let (job, descriptors) = protocol::receive::<Job>(io::stdin())?;
    let mut named: Vec<(String, OwnedFd)> = job.descriptors.into_iter().zip(descriptors).collect();
    rustix::process::fchdir(take(&mut named, RUN_DESCRIPTOR)?)?;
    let console = take(&mut named, CONSOLE_DESCRIPTOR)?;
    rustix::io::fcntl_setfd(&console, FdFlags::CLOEXEC)?;
    let console = ring::Writer::open(console.into())?;
    let control = UnixListener::bind(CONTROL_SOCKET)?;
    control.set_nonblocking(true)?;
    let (qmp, qmp_of_qemu) = UnixStream::pair()?;
    let qmp_of_qemu = OwnedFd::from(qmp_of_qemu);
    rustix::io::fcntl_setfd(&qmp_of_qemu, FdFlags::empty())?;
    named.push((QMP_DESCRIPTOR.to_owned(), qmp_of_qemu));

    // Blocked for QEMU too, which inherits it: when everybody is told to end, the guest goes down
    // first.
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGTERM);
    ends.thread_block()?;
    let signals = SignalFd::with_flags(&ends, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;

    let mut qemu = start_qemu(&job.qemu, &job.arguments, &named)?;
    // Only the lock is ours to hold; tap and disks close when QEMU does.
    named.retain(|(name, _)| name == protocol::LOCK_DESCRIPTOR);
    let pid = Pid::from_child(&qemu);
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    let stdout = qemu
        .stdout
        .take()
        .ok_or_else(|| io::Error::other("QEMU has no output"))?;
    let stderr = qemu
        .stderr
        .take()
        .ok_or_else(|| io::Error::other("QEMU has no error output"))?;
    rustix::io::ioctl_fionbio(&stdout, true)?;
    rustix::io::ioctl_fionbio(&stderr, true)?;
    qmp.set_write_timeout(Some(CLIENT_MAX))?;
    let keeper = Keeper {
        qemu,
        pidfd,
        stdout: Some(stdout),
        stderr: Some(stderr),
        qmp: Some(qmp),
        qmp_reader: qmp::Reader::default(),
        control,
        signals,
        clients: vec![],
        console,
        console_rests_until: None,
        complaint: vec![],
        intent: Intent::Start {
            until: Instant::now() + START_MAX,
        },
        is_resetting: false,
        press_at: None,
        continue_at: None,
        room_at: None,
    };
    keeper.watch()
}

/// What the guest is meant to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Intent {
    /// Not started yet; the server waits for our word.
    Start {
        until: Instant,
    },
    Run,
    /// The power button was pressed; when the guest goes down it is reset.
    Reboot {
        until: Instant,
    },
    /// The power button was pressed; when the guest goes down that is the end.
    Stop {
        until: Instant,
    },
    /// How it ended is written down; QEMU is leaving.
    Quit {
        until: Instant,
    },
}

impl Intent {
    fn deadline(self) -> Option<Instant> {
        match self {
            Intent::Run => None,
            Intent::Start { until }
            | Intent::Reboot { until }
            | Intent::Stop { until }
            | Intent::Quit { until } => Some(until),
        }
    }
}

/// Ids of the commands whose answers matter.
const CAPABILITIES_ID: u64 = 1;
const FIRST_CONTINUE_ID: u64 = 2;
const OTHER_ID: u64 = 3;

struct Keeper {
    qemu: Child,
    pidfd: OwnedFd,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    qmp: Option<UnixStream>,
    qmp_reader: qmp::Reader,
    control: UnixListener,
    signals: SignalFd,
    clients: Vec<Client>,
    console: ring::Writer,
    console_rests_until: Option<Instant>,
    complaint: Vec<u8>,
    intent: Intent,
    /// The guest went down and was reset; it is continued when the reset is done.
    is_resetting: bool,
    /// When to press the power button again, while a guest is to go down.
    press_at: Option<Instant>,
    /// When to continue the guest, while it waits for room on the host's disk.
    continue_at: Option<Instant>,
    /// When a guest that was continued counts as having room again.
    room_at: Option<Instant>,
}

impl Keeper {
    fn watch(mut self) -> io::Result<()> {
        loop {
            let is_gone = self.wait()?;
            if is_gone {
                self.console_rests_until = None;
            }
            self.read_console();
            self.read_complaint();
            self.hear_qemu()?;
            if is_gone {
                return self.end();
            }
            self.hear_signals()?;
            self.hear_clients()?;
            self.mind_time()?;
        }
    }

    /// Waits for anything; true when QEMU has ended.
    fn wait(&self) -> io::Result<bool> {
        let mut polled = vec![
            PollFd::new(&self.pidfd, PollFlags::IN),
            PollFd::new(&self.control, PollFlags::IN),
            PollFd::new(&self.signals, PollFlags::IN),
        ];
        if let Some(it) = &self.stdout
            && self.console_rests_until.is_none()
        {
            polled.push(PollFd::new(it, PollFlags::IN));
        }
        if let Some(it) = &self.stderr {
            polled.push(PollFd::new(it, PollFlags::IN));
        }
        if let Some(it) = &self.qmp {
            polled.push(PollFd::new(it, PollFlags::IN));
        }
        polled.extend(
            self.clients
                .iter()
                .map(|it| PollFd::new(it.descriptor(), PollFlags::IN)),
        );
        let deadlines = self.clients.iter().map(|it| it.until);
        let next = deadlines
            .chain(self.intent.deadline())
            .chain(self.press_at)
            .chain(self.continue_at)
            .chain(self.room_at)
            .chain(self.console_rests_until)
            .min();
        let timeout = next.map(|it| it.saturating_duration_since(Instant::now()));
        let timeout = timeout.map(|it| {
            Timespec::try_from(it + Duration::from_millis(1)).unwrap_or(Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            })
        });
        match rustix::event::poll(&mut polled, timeout.as_ref()) {
            Ok(_) => Ok(polled.first().is_some_and(|it| !it.revents().is_empty())),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn read_console(&mut self) {
        if self
            .console_rests_until
            .is_some_and(|it| it > Instant::now())
        {
            return;
        }
        self.console_rests_until = None;
        let mut buffer = [0; 16 * 1024];
        let mut read = 0;
        while let Some(pipe) = &mut self.stdout {
            match pipe.read(&mut buffer) {
                Ok(0) => self.stdout = None,
                Ok(length) => {
                    read += length;
                    // The file's room is reserved.  If writing fails all the same, losing console
                    // output is better than losing the guest.
                    let _ = self
                        .console
                        .append(buffer.get(..length).unwrap_or_default(), now());
                    if read >= CONSOLE_BURST {
                        self.console_rests_until = Some(Instant::now() + CONSOLE_REST);
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.stdout = None,
            }
        }
    }

    fn read_complaint(&mut self) {
        let mut buffer = [0; 4096];
        while let Some(pipe) = &mut self.stderr {
            match pipe.read(&mut buffer) {
                Ok(0) => self.stderr = None,
                Ok(length) => {
                    self.complaint
                        .extend_from_slice(buffer.get(..length).unwrap_or_default());
                    let excess = self.complaint.len().saturating_sub(COMPLAINT_BYTES_MAX);
                    self.complaint.drain(..excess);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.stderr = None,
            }
        }
    }

    fn hear_qemu(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        loop {
            let Some(stream) = &mut self.qmp else {
                return Ok(());
            };
            let length = match rustix::net::recv(
                stream.as_fd(),
                &mut buffer[..],
                rustix::net::RecvFlags::DONTWAIT,
            ) {
                Ok((length, _)) => length,
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(_) => 0,
            };
            if length == 0 {
                self.qmp = None;
                return Ok(());
            }
            let messages = self
                .qmp_reader
                .feed(buffer.get(..length).unwrap_or_default())?;
            for message in messages {
                self.understand(message)?;
            }
        }
    }

    fn understand(&mut self, message: Message) -> io::Result<()> {
        match message {
            Message::Greeting => self.tell("qmp_capabilities", CAPABILITIES_ID),
            Message::Returned {
                id: CAPABILITIES_ID,
            } => self.tell("cont", FIRST_CONTINUE_ID),
            Message::Returned {
                id: FIRST_CONTINUE_ID,
            } => self.started()?,
            Message::Refused { id, detail } if id != OTHER_ID => {
                self.complaint.extend_from_slice(detail.as_bytes());
                self.kill();
            }
            Message::Event(event) => self.happened(event)?,
            Message::Returned { .. } | Message::Refused { .. } => {}
        }
        Ok(())
    }

    fn started(&mut self) -> io::Result<()> {
        let record = KeeperRecord {
            version: VERSION,
            pid: std::process::id(),
            qemu_pid: self.qemu.id(),
            since: now(),
        };
        durable::write(Path::new(KEEPER_FILE), &serde_json::to_vec(&record)?, 0o600)?;
        self.intent = Intent::Run;
        // A server that died meanwhile finds the record.
        let _ = protocol::send(io::stdin(), &Reply::Started, &[]);
        Ok(())
    }

    fn happened(&mut self, event: Event) -> io::Result<()> {
        match event {
            Event::Shutdown { is_guest, reason } => match (self.intent, reason.as_str()) {
                (Intent::Quit { .. }, _) => {}
                (Intent::Reboot { .. }, _) if is_guest => {
                    self.is_resetting = true;
                    self.tell("system_reset", OTHER_ID);
                }
                (Intent::Stop { .. }, _) | (_, "host-qmp-quit") => {
                    self.finish(ExitCause::Requested)?;
                }
                (_, "guest-panic") => self.finish(ExitCause::GuestPanic)?,
                _ if is_guest => self.finish(ExitCause::GuestShutdown)?,
                _ => self.finish(ExitCause::Crashed {
                    detail: format!("QEMU was told to end: {reason}"),
                })?,
            },
            Event::Reset => {
                if self.is_resetting {
                    self.is_resetting = false;
                    self.tell("cont", OTHER_ID);
                }
                if matches!(self.intent, Intent::Reboot { .. }) {
                    self.intent = Intent::Run;
                }
            }
            Event::GuestPanicked => match self.intent {
                Intent::Stop { .. } => self.finish(ExitCause::Requested)?,
                Intent::Quit { .. } => {}
                Intent::Start { .. } | Intent::Run | Intent::Reboot { .. } => {
                    self.finish(ExitCause::GuestPanic)?;
                }
            },
            Event::OutOfRoom => {
                self.continue_at = Some(Instant::now() + CONTINUE_EVERY);
                self.room_at = None;
                // For the server to see.  If there is not even room for a name, nobody is told why.
                let _ = OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .mode(0o600)
                    .open(OUT_OF_ROOM_FILE);
            }
            Event::Other => {}
        }
        Ok(())
    }

    /// Writes down how the guest ended, then lets QEMU go.
    fn finish(&mut self, cause: ExitCause) -> io::Result<()> {
        write_exit(cause)?;
        self.intent = Intent::Quit {
            until: Instant::now() + QUIT_MAX,
        };
        self.tell("quit", OTHER_ID);
        Ok(())
    }

    fn hear_signals(&mut self) -> io::Result<()> {
        while let Ok(Some(_)) = self.signals.read_signal() {
            let patience_ms = match self.intent {
                Intent::Stop { .. } => 0,
                Intent::Start { .. }
                | Intent::Run
                | Intent::Reboot { .. }
                | Intent::Quit { .. } => TERM_PATIENCE_MS,
            };
            self.obey(&Request::Stop { patience_ms })?;
        }
        Ok(())
    }

    fn hear_clients(&mut self) -> io::Result<()> {
        while self.clients.len() < CLIENTS_MAX {
            match self.control.accept() {
                Ok((stream, _)) => self.clients.push(Client::new(stream)?),
                Err(_) => break,
            }
        }
        let mut waiting = vec![];
        for mut client in std::mem::take(&mut self.clients) {
            match client.read() {
                Heard::Nothing if Instant::now() < client.until => waiting.push(client),
                Heard::Nothing | Heard::End => {}
                Heard::Request(request) => {
                    let answer = match request {
                        Some(request) => {
                            self.obey(&request)?;
                            Answer::Done
                        }
                        None => Answer::Refused {
                            detail: "this keeper does not know that request".into(),
                        },
                    };
                    client.answer(&answer);
                }
            }
        }
        self.clients = waiting;
        Ok(())
    }

    fn obey(&mut self, request: &Request) -> io::Result<()> {
        let until = |patience_ms: u64| Instant::now() + Duration::from_millis(patience_ms);
        match (request, self.intent) {
            (_, Intent::Quit { .. }) | (Request::Reboot { .. }, Intent::Stop { .. }) => {}
            (Request::Reboot { patience_ms }, _) => {
                self.intent = Intent::Reboot {
                    until: until(*patience_ms),
                };
                self.press();
            }
            (Request::Stop { patience_ms: 0 }, _) => self.finish(ExitCause::Requested)?,
            (Request::Stop { patience_ms }, before) => {
                let mut until = until(*patience_ms);
                if let Intent::Stop { until: earlier } = before {
                    until = until.min(earlier);
                }
                self.intent = Intent::Stop { until };
                self.press();
            }
        }
        Ok(())
    }

    fn press(&mut self) {
        self.press_at = Some(Instant::now() + PRESS_EVERY);
        self.tell("system_powerdown", OTHER_ID);
    }

    fn mind_time(&mut self) -> io::Result<()> {
        if self.press_at.is_some_and(|it| it <= Instant::now()) {
            match self.intent {
                Intent::Reboot { .. } | Intent::Stop { .. } if !self.is_resetting => self.press(),
                Intent::Start { .. }
                | Intent::Run
                | Intent::Reboot { .. }
                | Intent::Stop { .. }
                | Intent::Quit { .. } => self.press_at = None,
            }
        }
        if self.continue_at.is_some_and(|it| it <= Instant::now()) {
            self.continue_at = None;
            if matches!(self.intent, Intent::Run) {
                // Without room there is another event, and another attempt.
                self.tell("cont", OTHER_ID);
                self.room_at = Some(Instant::now() + ROOM_AFTER);
            }
        }
        if self.room_at.is_some_and(|it| it <= Instant::now()) {
            self.room_at = None;
            let _ = std::fs::remove_file(OUT_OF_ROOM_FILE);
        }
        if self.intent.deadline().is_none_or(|it| it > Instant::now()) {
            return Ok(());
        }
        match self.intent {
            Intent::Run => {}
            Intent::Start { .. } | Intent::Quit { .. } => self.kill(),
            Intent::Reboot { .. } => {
                self.intent = Intent::Run;
                self.tell("system_reset", OTHER_ID);
            }
            Intent::Stop { .. } => self.finish(ExitCause::Requested)?,
        }
        Ok(())
    }

    /// Sends a command; a QEMU that takes none is dealt with by the deadlines.
    fn tell(&mut self, command: &str, id: u64) {
        if let Some(stream) = &mut self.qmp {
            let _ = stream.write_all(&qmp::command(command, id));
        }
    }

    fn kill(&mut self) {
        let _ = self.qemu.kill();
        // Its end is seen at once; no deadline is needed any more.
        if let Intent::Quit { until } | Intent::Start { until } = &mut self.intent {
            *until = Instant::now() + QUIT_MAX;
        }
    }

    /// QEMU has ended: unless it was let go, that is a crash.
    fn end(mut self) -> io::Result<()> {
        let status = self.qemu.wait()?;
        let complaint = String::from_utf8_lossy(&self.complaint).trim().to_owned();
        let how = match (status.signal(), status.code()) {
            (Some(signal), _) => format!("QEMU ended by signal {signal}"),
            (None, Some(code)) => format!("QEMU ended with status {code}"),
            (None, None) => "QEMU ended".to_owned(),
        };
        let detail = if complaint.is_empty() {
            how
        } else {
            format!("{how}: {complaint}")
        };
        match self.intent {
            Intent::Quit { .. } => Ok(()),
            Intent::Start { .. } => Err(io::Error::other(detail)),
            Intent::Run | Intent::Reboot { .. } | Intent::Stop { .. } => {
                write_exit(ExitCause::Crashed { detail })
            }
        }
    }
}

fn write_exit(cause: ExitCause) -> io::Result<()> {
    let record = ExitRecord {
        version: VERSION,
        exit: Exit { at: now(), cause },
    };
    durable::write(Path::new(EXIT_FILE), &serde_json::to_vec(&record)?, 0o600)
}
