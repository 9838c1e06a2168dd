//! Disks that are full or cannot be written: the server says so, reads go on, nothing
//! acknowledged is lost, and it recovers when there is room again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cumulet_testkit::cloud::Cloud;
use cumulet_testkit::ec2::CallError;

use crate::{PROGRAM, SIMULATED, key_pairs, refusal, s3};

/// A small file system in memory, mounted over a directory.
struct Mount(PathBuf);

impl Mount {
    fn new(at: PathBuf, size_mib: u32) -> Self {
        fs::create_dir(&at).unwrap();
        let size = format!("size={size_mib}m");
        run(&["mount", "-t", "tmpfs", "-o", &size, "cumulet-test"], &at);
        Self(at)
    }

    fn remount(&self, how: &str) {
        run(&["mount", "-o", &format!("remount,{how}")], &self.0);
    }

    /// Leaves two MiB.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filling");
        let found = rustix::fs::statvfs(&self.0).unwrap();
        let free = found.f_bavail * found.f_frsize;
        let count = usize::try_from(free.saturating_sub(2 << 20)).unwrap();
        fs::write(&path, vec![1; count]).unwrap();
        path
    }
}

fn run(command: &[&str], at: &Path) {
    let status = Command::new(command[0])
        .args(&command[1..])
        .arg(at)
        .status()
        .unwrap();
    assert!(status.success(), "{command:?}: {status}; root is needed");
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_room() {
    let mut cloud = Cloud::prepare(PROGRAM, SIMULATED);
    let disk = Mount::new(cloud.data_directory(), 160);
    cloud.restart();
    let client = cloud.ec2();
    let create = |name: &str| client.call("CreateKeyPair", &[("KeyName", name)]);
    create("before").unwrap();
    assert_eq!(s3(&client, "PUT", "/bucket", b"").0, 200);
    assert_eq!(s3(&client, "PUT", "/bucket/before", b"before").0, 200);

    let filling = disk.fill();
    for name in ["full-1", "full-2"] {
        match create(name) {
            Err(CallError::Refused { status, .. }) => assert_eq!(status, 503),
            other => panic!("a full disk took a key pair: {other:?}"),
        }
        let (status, body) = s3(&client, "PUT", "/bucket/full", b"full");
        assert!(
            status == 503 || status == 507,
            "{status}: {}",
            String::from_utf8_lossy(&body)
        );
    }
    assert_eq!(key_pairs(&client), ["before"]);
    assert_eq!(
        s3(&client, "GET", "/bucket/before", b""),
        (200, b"before".to_vec())
    );
    assert_eq!(s3(&client, "GET", "/bucket/full", b"").0, 404);

    // Killed and started again while it is full, it still answers.
    cloud.kill();
    cloud.restart();
    assert_eq!(key_pairs(&client), ["before"]);
    assert!(create("full-3").is_err());

    fs::remove_file(filling).unwrap();
    create("after").unwrap();
    assert_eq!(s3(&client, "PUT", "/bucket/after", b"after").0, 200);
    assert!(cloud.log_text().contains("disk of the records is full"));
    assert!(!cloud.log_text().contains("panicked"));
    cloud.kill();
    cloud.restart();
    assert_eq!(key_pairs(&client), ["after", "before"]);
    cloud.stop();

    disk.remount("ro");
    let refused = refusal(&cloud, &["serve", "--listen", "127.0.0.1:0"]);
    assert!(refused.contains("Read-only file system"), "{refused}");
    disk.remount("rw");
    cloud.restart();
    assert_eq!(key_pairs(&client), ["after", "before"]);
    cloud.kill();
}
