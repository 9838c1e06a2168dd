//! The image worker as a real process.  Needs root, since the worker must be somebody else.
//!
//! Has its own `main`, because the program under test starts itself again as the worker.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use cumulet_bundle::bundle::{Directory, Form, Options, bundle};
use cumulet_host::api::{BundlePart, FileFormat, HostError, ImageKind, ImageSource, Progress};
use cumulet_host::image::channel::{Done, Report, receive_job};
use cumulet_host::image::{
    Contents, FileSystem, ImageFacts, WorkerJob, WorkerOutcome, WorkerProgram, run_worker,
    worker_main,
};

const NOBODY: u32 = 65534;
const KEY: [u8; 16] = *b"0123456789abcdef";
const IV: [u8; 16] = *b"fedcba9876543210";

fn main() -> ExitCode {
    let argument = std::env::args().nth(1).unwrap_or_default();
    match argument.as_str() {
        "image-worker" => return worker_main(),
        "liar" => return lie(false),
        "forger" => return lie(true),
        _ => {}
    }
    let tests: [(&str, fn()); 10] = [
        ("a_bundle_becomes_the_image", a_bundle_becomes_the_image),
        (
            "the_worker_is_nobody_and_knows_nothing",
            the_worker_is_nobody_and_knows_nothing,
        ),
        (
            "damaged_and_missing_parts_are_named",
            damaged_and_missing_parts_are_named,
        ),
        (
            "trouble_of_the_host_is_retryable",
            trouble_of_the_host_is_retryable,
        ),
        ("a_killed_worker_is_retryable", a_killed_worker_is_retryable),
        (
            "a_worker_that_did_not_read_all_is_not_believed",
            a_lying_worker_is_not_believed,
        ),
        (
            "raw_and_qcow2_files_become_the_image",
            raw_and_qcow2_files_become_the_image,
        ),
        (
            "what_is_too_large_or_unknown_is_refused",
            what_is_too_large_or_unknown_is_refused,
        ),
        (
            "a_worker_that_meets_a_limit_is_the_images_fault",
            a_worker_that_meets_a_limit_is_the_images_fault,
        ),
        ("no_worker_is_left", no_worker_is_left),
    ];
    let mut failed = 0;
    for (name, test) in tests.iter().filter(|(name, _)| name.contains(&argument)) {
        let is_ok = std::panic::catch_unwind(test).is_ok();
        eprintln!("test {name} ... {}", if is_ok { "ok" } else { "FAILED" });
        failed += u32::from(!is_ok);
    }
    ExitCode::from(u8::from(failed > 0))
}

fn shell(directory: &Path, command: &str) {
    let mut bash = Command::new("bash");
    let output = bash
        .args(["-euo", "pipefail", "-c", command])
        .current_dir(directory)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {error}");
}

/// An ext4 file system of 24 MiB with some bytes in it.
fn make_image(directory: &Path) {
    shell(
        directory,
        "mkdir content; head -c 11000000 /dev/urandom > content/noise; \
         mke2fs -q -t ext4 -d content image 24M",
    );
}

fn silent() -> Progress {
    Arc::new(|_| {})
}

fn output(directory: &Path) -> File {
    let path = directory.join("output");
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .unwrap()
}

fn run(source: ImageSource, output: File) -> Result<WorkerOutcome, HostError> {
    run_as(
        &WorkerProgram::own(NOBODY, NOBODY),
        source,
        output,
        &silent(),
    )
}

fn run_as(
    program: &WorkerProgram,
    source: ImageSource,
    output: File,
    progress: &Progress,
) -> Result<WorkerOutcome, HostError> {
    run_worker(
        program,
        WorkerJob {
            source,
            output,
            size_max_bytes: 64 << 20,
        },
        progress,
    )
}

type Open = Box<dyn FnOnce() -> io::Result<Box<dyn Read + Send>> + Send>;

/// The image of a directory as a bundle whose parts lie beside it.
fn bundled(directory: &Path, form: Form) -> ImageSource {
    let image = File::open(directory.join("image")).unwrap();
    let options = Options {
        prefix: "image",
        form,
        key: &KEY,
        iv: &IV,
        threads: 2,
        level: 1,
    };
    let made = bundle(&image, &options, &mut Directory::new(directory)).unwrap();
    let parts = made.parts.iter().map(|part| {
        let path = directory.join(&part.filename);
        let open: Open = Box::new(move || Ok(Box::new(File::open(path)?)));
        BundlePart {
            open,
            sha1: part.sha1,
        }
    });
    ImageSource::Bundle {
        parts: parts.collect(),
        key: KEY,
        iv: IV,
        sha1: made.digest,
        size_bytes: made.size,
    }
}

fn with_first_part(source: ImageSource, wrap: impl FnOnce(Open) -> Open) -> ImageSource {
    let ImageSource::Bundle {
        mut parts,
        key,
        iv,
        sha1,
        size_bytes,
    } = source
    else {
        panic!("a bundle is needed")
    };
    let first = parts.remove(0);
    parts.insert(
        0,
        BundlePart {
            open: wrap(first.open),
            sha1: first.sha1,
        },
    );
    ImageSource::Bundle {
        parts,
        key,
        iv,
        sha1,
        size_bytes,
    }
}

fn a_bundle_becomes_the_image() {
    for form in [Form::Tar, Form::Raw] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        make_image(path);
        let seen = Arc::new(Mutex::new(vec![]));
        let percents = seen.clone();
        let progress: Progress = Arc::new(move |percent| percents.lock().unwrap().push(percent));
        let program = WorkerProgram::own(NOBODY, NOBODY);
        let outcome = run_as(&program, bundled(path, form), output(path), &progress).unwrap();
        assert_eq!(outcome.size, 24 << 20);
        assert_eq!(outcome.facts.contents, Contents::Rootfs(FileSystem::Ext4));
        assert_eq!(outcome.kind(), ImageKind::Rootfs);
        shell(path, "cmp image output");
        shell(
            path,
            &format!("echo '{}  output' | sha256sum -c", outcome.sha256),
        );
        // It is sparse: half of the file system is empty.
        assert!(fs::metadata(path.join("output")).unwrap().blocks() * 512 < 16 << 20);
        let seen = seen.lock().unwrap();
        assert!(!seen.is_empty() && seen.is_sorted(), "{seen:?}");
    }
}

/// Children of this process.
fn children() -> Vec<u32> {
    let mut found = vec![];
    for entry in fs::read_dir("/proc").unwrap() {
        let name = entry.unwrap().file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        let parent = stat
            .rsplit(')')
            .next()
            .and_then(|rest| rest.split(' ').nth(2));
        if parent == Some(&std::process::id().to_string()) {
            found.push(pid);
        }
    }
    found
}

/// A reader that lets the test act after a megabyte, while the worker waits for more.
struct Held {
    inner: Box<dyn Read + Send>,
    left: usize,
    reached: Sender<()>,
    go_on: Receiver<()>,
}

impl Read for Held {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            self.left = usize::MAX;
            let _ = self.reached.send(());
            let _ = self.go_on.recv();
        }
        let length = buffer.len().min(self.left);
        let length = self.inner.read(&mut buffer[..length])?;
        self.left -= length;
        Ok(length)
    }
}

/// Runs a bundle; calls `act` with the worker's id in the middle of the first part.
fn run_held(act: impl FnOnce(u32)) -> Result<WorkerOutcome, HostError> {
    let directory = tempfile::tempdir().unwrap();
    make_image(directory.path());
    let (reached, is_reached) = channel();
    let (go, go_on) = channel();
    let source = with_first_part(bundled(directory.path(), Form::Tar), |open| {
        Box::new(move || {
            Ok(Box::new(Held {
                inner: open()?,
                left: 1 << 20,
                reached,
                go_on,
            }))
        })
    });
    let output = output(directory.path());
    let running = std::thread::spawn(move || run(source, output));
    is_reached.recv().unwrap();
    let children = children();
    assert_eq!(children.len(), 1, "{children:?}");
    act(children[0]);
    go.send(()).unwrap();
    running.join().unwrap()
}

fn the_worker_is_nobody_and_knows_nothing() {
    let outcome = run_held(|pid| {
        // It has confined itself before it reads its first byte; that byte may still be under way.
        let status = loop {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            if status.contains("NoNewPrivs:\t1") {
                break status;
            }
            assert!(!status.contains("State:\tZ"), "the worker has ended");
            std::thread::yield_now();
        };
        let line = |name: &str| {
            let found = status.lines().find_map(|line| line.strip_prefix(name));
            found
                .unwrap()
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(line("Uid:"), "65534 65534 65534 65534");
        assert_eq!(line("Gid:"), "65534 65534 65534 65534");
        assert_eq!(line("Groups:"), "");
        assert_eq!(line("CapEff:"), "0000000000000000");
        assert_eq!(fs::read(format!("/proc/{pid}/environ")).unwrap(), b"");
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        assert_eq!(arguments, b"/proc/self/exe\0image-worker\0");
        let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        assert!(open <= 6, "{open}");
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let processes = limits
            .lines()
            .find(|line| line.starts_with("Max processes"))
            .unwrap();
        assert!(
            processes.split_whitespace().nth(2) == Some("0"),
            "{processes}"
        );
    });
    assert_eq!(outcome.unwrap().size, 24 << 20);
}

fn damaged_and_missing_parts_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    make_image(path);
    for place in [0, 5_000_000] {
        let source = bundled(path, Form::Tar);
        let part = File::options()
            .read(true)
            .write(true)
            .open(path.join("image.part.01"))
            .unwrap();
        let place = place.min(part.metadata().unwrap().len() - 1);
        let mut byte = [0];
        part.read_exact_at(&mut byte, place).unwrap();
        part.write_all_at(&[byte[0] ^ 1], place).unwrap();
        let error = run(source, output(path)).unwrap_err();
        assert!(!error.is_retryable, "{error}");
        let text = "Part 1 of the bundle is damaged";
        assert!(error.user_reason.starts_with(text), "{}", error.user_reason);
    }
    let source = bundled(path, Form::Tar);
    fs::remove_file(path.join("image.part.01")).unwrap();
    let error = run(source, output(path)).unwrap_err();
    assert_eq!(error.user_reason, "Part 1 of the bundle is missing");
    assert!(!error.is_retryable);
    let ImageSource::Bundle {
        parts,
        key,
        iv,
        size_bytes,
        ..
    } = bundled(path, Form::Tar)
    else {
        unreachable!()
    };
    let source = ImageSource::Bundle {
        parts,
        key,
        iv,
        sha1: [1; 20],
        size_bytes,
    };
    let error = run(source, output(path)).unwrap_err();
    assert!(
        !error.is_retryable && error.user_reason.contains("SHA-1"),
        "{error}"
    );
}

fn trouble_of_the_host_is_retryable() {
    let directory = tempfile::tempdir().unwrap();
    make_image(directory.path());
    let source = with_first_part(bundled(directory.path(), Form::Tar), |_| {
        Box::new(|| Err(io::Error::other("the object store is away")))
    });
    let error = run(source, output(directory.path())).unwrap_err();
    assert!(
        error.is_retryable && error.cause.contains("away"),
        "{error}"
    );
    // A full disk.
    let full = File::options()
        .read(true)
        .write(true)
        .open("/dev/full")
        .unwrap();
    let error = run(bundled(directory.path(), Form::Tar), full).unwrap_err();
    assert!(
        error.is_retryable && error.cause.contains("No space left"),
        "{error}"
    );
}

fn a_killed_worker_is_retryable() {
    let outcome = run_held(|pid| {
        let pid = nix::unistd::Pid::from_raw(pid.try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    });
    let error = outcome.unwrap_err();
    assert!(error.is_retryable, "{error}");
}

/// A worker that was taken over: it claims a result without having read its input, or says that it
/// wrote another image than it did.
fn lie(is_attentive: bool) -> ExitCode {
    use std::os::fd::AsFd;
    let socket = io::stdin().as_fd().try_clone_to_owned().unwrap();
    let (_job, [input, _output]) = receive_job(socket.as_fd()).unwrap();
    if is_attentive {
        io::copy(&mut File::from(input), &mut io::sink()).unwrap();
    }
    let facts = ImageFacts {
        contents: Contents::Rootfs(FileSystem::Ext4),
        format: FileFormat::Raw,
        virtual_size: 0,
    };
    let done = Done {
        sha256: cumulet_domain::Digest([7; 32]),
        size: 0,
        facts,
    };
    let mut line = serde_json::to_vec(&Report::Done(done)).unwrap();
    line.push(b'\n');
    File::from(socket).write_all(&line).unwrap();
    loop {
        std::thread::park();
    }
}

fn a_lying_worker_is_not_believed() {
    let directory = tempfile::tempdir().unwrap();
    make_image(directory.path());
    let program = WorkerProgram {
        arguments: vec!["liar".into()],
        ..WorkerProgram::own(NOBODY, NOBODY)
    };
    let source = bundled(directory.path(), Form::Tar);
    let error = run_as(&program, source, output(directory.path()), &silent()).unwrap_err();
    assert!(error.cause.contains("did not read all parts"), "{error}");
    let program = WorkerProgram {
        arguments: vec!["forger".into()],
        ..program
    };
    let source = bundled(directory.path(), Form::Tar);
    let error = run_as(&program, source, output(directory.path()), &silent()).unwrap_err();
    assert!(!error.is_retryable, "{error}");
    assert!(error.cause.contains("the worker reported 0707"), "{error}");
}

fn a_worker_that_meets_a_limit_is_the_images_fault() {
    let directory = tempfile::tempdir().unwrap();
    make_image(directory.path());
    let program = WorkerProgram {
        path: "/bin/sh".into(),
        arguments: vec!["-c".into(), "ulimit -S -t 1; while :; do :; done".into()],
        ..WorkerProgram::own(NOBODY, NOBODY)
    };
    let source = bundled(directory.path(), Form::Tar);
    let error = run_as(&program, source, output(directory.path()), &silent()).unwrap_err();
    assert!(!error.is_retryable, "{error}");
    assert!(error.user_reason.contains("too much time"), "{error}");
}

fn file(directory: &Path, name: &str, format: FileFormat) -> ImageSource {
    ImageSource::File {
        file: File::open(directory.join(name)).unwrap(),
        format,
    }
}

fn raw_and_qcow2_files_become_the_image() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    make_image(path);
    let outcome = run(file(path, "image", FileFormat::Raw), output(path)).unwrap();
    assert_eq!(outcome.facts.contents, Contents::Rootfs(FileSystem::Ext4));
    shell(path, "cmp image output");
    for options in [
        "",
        "-c",
        "-o compat=0.10",
        "-c -o compat=0.10",
        "-o cluster_size=512",
        "-c -o cluster_size=512",
        "-c -o cluster_size=2M",
        "-o preallocation=metadata",
        "-o lazy_refcounts=on",
    ] {
        shell(
            path,
            &format!("qemu-img convert -f raw -O qcow2 {options} image disk"),
        );
        let outcome = run(file(path, "disk", FileFormat::Qcow2), output(path)).unwrap();
        assert_eq!(outcome.facts.format, FileFormat::Qcow2);
        assert_eq!(outcome.size, 24 << 20);
        shell(path, "cmp image output");
    }
}

fn what_is_too_large_or_unknown_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    make_image(path);
    shell(
        path,
        "truncate -s 65M large; qemu-img create -q -f qcow2 huge 1T; head -c 9M /dev/urandom > noise; \
         qemu-img create -q -f qcow2 -b image -F raw backed; \
         qemu-img convert -O qcow2 -c -o compression_type=zstd image zstd; \
         qemu-img create -q -f qcow2 -o data_file=data.raw outside 1M; \
         qemu-img create -q -f qcow2 -o extended_l2=on,cluster_size=64k extended 1M; \
         qemu-img create -q -f qcow2 --object secret,id=s,data=x \
           -o encrypt.format=luks,encrypt.key-secret=s locked 1M; \
         qemu-img create -q -f qcow2 past 1M; qemu-img snapshot -c then past; \
         qemu-img convert -O qcow2 image disk; head -c 10M image > cut",
    );
    for (name, format, why) in [
        ("large", FileFormat::Raw, "more than the"),
        ("noise", FileFormat::Raw, "neither a root file system"),
        ("cut", FileFormat::Raw, "the end is missing"),
        ("disk", FileFormat::Raw, "a qcow2 file"),
        ("huge", FileFormat::Qcow2, "more than the"),
        ("image", FileFormat::Qcow2, "does not begin as one"),
        ("backed", FileFormat::Qcow2, "backing file"),
        ("zstd", FileFormat::Qcow2, "another way than zlib"),
        ("outside", FileFormat::Qcow2, "external data file"),
        ("extended", FileFormat::Qcow2, "extended tables"),
        ("locked", FileFormat::Qcow2, "encrypted"),
        ("past", FileFormat::Qcow2, "snapshots"),
    ] {
        let error = run(file(path, name, format), output(path)).unwrap_err();
        assert!(!error.is_retryable, "{name}: {error}");
        assert!(
            error.user_reason.contains(why),
            "{name}: {}",
            error.user_reason
        );
    }
    let ImageSource::Bundle {
        parts,
        key,
        iv,
        sha1,
        ..
    } = bundled(path, Form::Tar)
    else {
        unreachable!()
    };
    let source = ImageSource::Bundle {
        parts,
        key,
        iv,
        sha1,
        size_bytes: 1 << 50,
    };
    let error = run(source, output(path)).unwrap_err();
    assert!(
        !error.is_retryable && error.user_reason.contains("more than the"),
        "{error}"
    );
}

fn no_worker_is_left() {
    assert_eq!(children(), Vec::<u32>::new());
}
