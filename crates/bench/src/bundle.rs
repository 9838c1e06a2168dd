//! Bundling and unbundling 1 GiB, against the pipeline of programs that does the same.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use cumulet_auth::der::pem_body;
use cumulet_auth::keys::pkcs8_of_pkcs1;
use cumulet_bundle::manifest;
use cumulet_bundle::unbundle::{Expected, ImageSink, PartSource, PartsReader};
use cumulet_testkit::Cloud;
use cumulet_testkit::cloud::ACCOUNT;

use crate::Plan;
use crate::report::{Report, Value};

const GIB: u64 = 1 << 30;
/// Of the image, files of this system; the rest is a hole, as images have them.
const DATA_BYTES: u64 = 3 * GIB / 4;

/// `openssl enc` takes key and initial vector in hex.
const KEY: &str = "00112233445566778899aabbccddeeff";
const MAKE: &str = "set -euo pipefail; cd \"$1\"; tar --sparse -cf - -C \"$(dirname \"$0\")\" image | \
    pigz -1 | openssl enc -aes-128-cbc -K \"$2\" -iv \"$2\" | split -b 10485760 -d -a 4 - part.";
const TAKE: &str = "set -euo pipefail; mkdir \"$1/out\"; cat \"$1\"/part.* | \
    openssl enc -d -aes-128-cbc -K \"$2\" -iv \"$2\" | pigz -d | tar -xSf - -C \"$1/out\"";

pub(crate) fn run(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let cloud = Cloud::start(&plan.program, &[("CUMULET_COMPUTE", "simulated")]);
    let image = cloud.scratch().join("image");
    let size = if plan.is_quick { GIB / 8 } else { GIB };
    make_image(&image, size)?;
    let environment: std::collections::BTreeMap<String, String> =
        serde_json::from_str(&cloud.run(&["env", "--json"]))?;
    let (mut makes, mut pipes, mut takes, mut unpipes) = (vec![], vec![], vec![], vec![]);
    for _ in 0..plan.turns(5) {
        let ours = fresh(&cloud.scratch().join("ours"))?;
        let theirs = fresh(&cloud.scratch().join("theirs"))?;
        let mut bundling = cloud.command(&["bundle", "image", "-u", ACCOUNT, "-p", "image", "-d"]);
        bundling.arg(&ours).arg("-i").arg(&image).envs(&environment);
        makes.push(ran(&mut bundling)?);
        pipes.push(ran(bash(MAKE, &[&image, &theirs]).arg(KEY))?);
        let mut taking = Command::new(std::env::current_exe()?);
        taking
            .arg("unbundle")
            .arg(ours.join("image.manifest.xml"))
            .arg(environment.get("EC2_PRIVATE_KEY").context("a key")?)
            .arg(ours.join("out"));
        takes.push(ran(&mut taking)?);
        unpipes.push(ran(bash(TAKE, &[&image, &theirs]).arg(KEY))?);
        ran(Command::new("cmp").arg(&image).arg(ours.join("out")))?;
        ran(Command::new("cmp")
            .arg(&image)
            .arg(theirs.join("out/image")))?;
    }
    let mib = size >> 20;
    report.versus(
        &format!("bundling {mib} MiB, against tar | pigz -1 | openssl | split"),
        Value::median_of(makes),
        Value::median_of(pipes),
        "at most 1.00",
    );
    report.versus(
        &format!("unbundling {mib} MiB, against cat | openssl | pigz -d | tar"),
        Value::median_of(takes),
        Value::median_of(unpipes),
        "-",
    );
    Ok(())
}

fn fresh(path: &Path) -> anyhow::Result<std::path::PathBuf> {
    let _ = std::fs::remove_dir_all(path);
    std::fs::create_dir(path)?;
    Ok(path.to_owned())
}

fn bash(script: &str, paths: &[&Path]) -> Command {
    let mut command = Command::new("bash");
    command.args(["-c", script]).args(paths);
    command
}

fn ran(command: &mut Command) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let done = command.output()?;
    let took = start.elapsed();
    if !done.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(took)
}

/// Files of this system one after the other, with holes between.
fn make_image(path: &Path, size: u64) -> anyhow::Result<()> {
    let mut image = File::create(path)?;
    let data = DATA_BYTES * (size >> 20) / (GIB >> 20);
    let files = Command::new("find")
        .args([
            "/usr/lib",
            "/usr/share",
            "-xdev",
            "-type",
            "f",
            "-size",
            "+64k",
        ])
        .output()?;
    let mut files: Vec<&str> = std::str::from_utf8(&files.stdout)?.lines().collect();
    files.sort_unstable();
    let mut written = 0;
    // Again from the beginning when there are too few; the window of gzip is far smaller.
    for file in files.iter().cycle() {
        if written >= data {
            break;
        }
        let mut file = File::open(file)?.take(data - written);
        written += io::copy(&mut file, &mut image)?;
        // A quarter of what was written so far stays a hole.
        image.seek(SeekFrom::Start(
            (written + written / 3).next_multiple_of(4096).min(size),
        ))?;
    }
    image.set_len(size)?;
    image.flush()?;
    image.sync_all()?;
    Ok(())
}

/// The image of a bundle in a directory, as the cloud takes it out.
pub(crate) fn unbundle(manifest: &str, private_key: &str, out: &str) -> anyhow::Result<()> {
    let folder = Path::new(manifest).parent().context("a folder")?;
    let read = manifest::parse(&std::fs::read(manifest)?)?;
    let pem = std::fs::read_to_string(private_key)?;
    let pkcs8 = pem_body(&pem, "PRIVATE KEY")
        .or_else(|| Some(pkcs8_of_pkcs1(&pem_body(&pem, "RSA PRIVATE KEY")?).to_vec()))
        .context("a private key")?;
    let keys = read.open_for_user(&pkcs8)?;
    let parts = read.parts.iter().map(|part| {
        let path = folder.join(&part.filename);
        PartSource {
            open: Box::new(move || {
                Ok(Box::new(BufReader::with_capacity(256 * 1024, File::open(path)?)) as Box<_>)
            }),
            sha1: part.sha1,
        }
    });
    let expected = Expected {
        key: *keys.key,
        iv: keys.iv,
        sha1: read.digest,
        size: read.size,
    };
    let mut sink = Sparse {
        file: File::create(out)?,
        end: 0,
    };
    let size = cumulet_bundle::unbundle::unbundle(
        PartsReader::new(parts.collect()),
        &expected,
        &mut sink,
    )?;
    sink.file.set_len(size)?;
    Ok(())
}

/// A file in which zeros are left out.
struct Sparse {
    file: File,
    end: u64,
}

impl ImageSink for Sparse {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !cumulet_bundle::bundle::is_zero(bytes) {
            self.file.write_all_at(bytes, self.end)?;
        }
        self.end += bytes.len() as u64;
        Ok(())
    }

    fn hole(&mut self, length: u64) -> io::Result<()> {
        self.end += length;
        Ok(())
    }
}
