//! The real program, started in a directory of its own and gone without a trace afterwards.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::ec2::Ec2;

/// Account, key and secret of every cloud of the tests.
pub const ACCOUNT: &str = "123456789012";
pub const ACCESS_KEY_ID: &str = "AKIAIOSFODNN7TESTING";
pub const SECRET_ACCESS_KEY: &str = "test/Secret+Access/Key/Of/40/Characters+";

/// How long a server may take until it is ready: a loaded machine is slow, a broken one never.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running cloud.  Dropping it kills the server and undoes everything on the host.
pub struct Cloud {
    program: PathBuf,
    directory: tempfile::TempDir,
    settings: Vec<(String, String)>,
    server: Option<Child>,
    address: SocketAddr,
}

impl Cloud {
    /// Starts `cumulet serve` on a free port.  `settings` are names of variables and their values,
    /// as `("CUMULET_COMPUTE", "simulated")`.
    ///
    /// # Panics
    /// When the server does not become ready, with its log.
    pub fn start(program: impl Into<PathBuf>, settings: &[(&str, &str)]) -> Self {
        let mut cloud = Self::prepare(program, settings);
        cloud.restart();
        cloud
    }

    /// The same without starting the server, for commands that come first.
    ///
    /// # Panics
    /// When there is no room for a directory.
    pub fn prepare(program: impl Into<PathBuf>, settings: &[(&str, &str)]) -> Self {
        let directory = tempfile::Builder::new().prefix("cumulet-test-").tempdir();
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self {
            program: program.into(),
            directory: directory.expect("a directory"),
            settings: settings.iter().map(own).collect(),
            server: None,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        }
    }

    /// Where the cloud keeps everything.
    pub fn data_directory(&self) -> PathBuf {
        self.directory.path().join("cloud")
    }

    /// A directory that goes with the cloud, for files of the test.
    pub fn scratch(&self) -> &Path {
        self.directory.path()
    }

    /// The address of all doors.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The server's process, while it runs.
    pub fn server_pid(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id)
    }

    /// A client with the first user's key.
    pub fn ec2(&self) -> Ec2 {
        Ec2 {
            address: self.address,
            access_key_id: ACCESS_KEY_ID.to_owned(),
            secret: SECRET_ACCESS_KEY.to_owned(),
            region: "us-east-1".to_owned(),
        }
    }

    /// A command of the program for this cloud, not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments);
        // What the surroundings set is not the test's.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CUMULET_") {
                command.env_remove(name);
            }
        }
        command.env("CUMULET_DATA_DIR", self.data_directory());
        command.env("CUMULET_BOOTSTRAP_ACCOUNT_ID", ACCOUNT);
        command.env("CUMULET_BOOTSTRAP_ACCESS_KEY_ID", ACCESS_KEY_ID);
        command.env("CUMULET_BOOTSTRAP_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY);
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command to its end and gives its standard output.
    ///
    /// # Panics
    /// When it fails, with what it said.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(
            output.status.success(),
            "{arguments:?} failed with {}: {}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Runs a command to its end, however that is.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments)
            .output()
            .expect("the program starts")
    }

    /// Starts the server, on the port it had before if it had one.
    ///
    /// # Panics
    /// When it does not become ready, with its log.
    pub fn restart(&mut self) {
        assert!(self.server.is_none(), "the server runs already");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .expect("a log file");
        let listen = self.address.to_string();
        let mut command = self.command(&["serve", "--listen", &listen]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        let mut server = command.spawn().expect("the program starts");
        let stdout = server.stdout.take().expect("it is piped");
        self.server = Some(server);
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        let since = Instant::now();
        loop {
            match told.recv_timeout(PATIENCE.saturating_sub(since.elapsed())) {
                Ok(line) => {
                    if let Some(address) = line.strip_prefix("ready http://") {
                        self.address = address.trim_end_matches('/').parse().expect("an address");
                        return;
                    }
                }
                Err(cause) => panic!("the server is not ready ({cause}): {}", self.log_tail()),
            }
        }
    }

    /// Sets a variable for what is started from now on; `None` takes it away.
    pub fn set(&mut self, name: &str, value: Option<&str>) {
        self.settings.retain(|(known, _)| known != name);
        let set = value.map(|value| (name.to_owned(), value.to_owned()));
        self.settings.extend(set);
    }

    /// Waits until the server has ended by itself.
    ///
    /// # Panics
    /// When it goes on, with its log.
    pub fn wait_for_end(&mut self) {
        let mut server = self.server.take().expect("the server runs");
        let since = Instant::now();
        while server.try_wait().expect("it can be waited for").is_none() {
            if since.elapsed() > PATIENCE {
                self.server = Some(server);
                panic!("the server goes on: {}", self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills the server as a power cut of the process would: SIGKILL, no warning.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        let mut server = self.server.take().expect("the server runs");
        server.kill().expect("it can be killed");
        server.wait().expect("it can be waited for");
    }

    /// Asks the server to end (SIGTERM) and waits for it; guests stay.
    ///
    /// # Panics
    /// When it ends badly, with its log.
    pub fn stop(&mut self) {
        let mut server = self.server.take().expect("the server runs");
        let done = Command::new("kill")
            .arg("-TERM")
            .arg(server.id().to_string())
            .status();
        assert!(done.expect("kill runs").success());
        let status = server.wait().expect("it can be waited for");
        assert!(
            status.success(),
            "the server ended with {status}: {}",
            self.log_tail()
        );
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("server.log")
    }

    /// What the server logged so far.
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let text = self.log_text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the end of the server's log\n{}\n---", self.log_tail());
        }
        let done = self.output(&["uninstall", "--purge"]);
        if !done.status.success() && !std::thread::panicking() {
            panic!(
                "uninstall failed: {}",
                String::from_utf8_lossy(&done.stderr)
            );
        }
    }
}

/// Tries until `probe` brings something, for at most `patience`; there is no shorter way to wait
/// for another process.
///
/// # Panics
/// When nothing comes, naming `what`.
pub fn wait_until<T>(what: &str, patience: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(
            since.elapsed() < patience,
            "waited {patience:?} in vain: {what}"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}
